"""The protocol `llama-chunks` against llama-perplexity, on one file: the held-out corpus, its documents joined.

    python tests/benchmarks/llama_perplexity.py llama-perplexity --output docs/results/llama-perplexity.json

llama-perplexity is not part of llama-cpp-python's wheel; it is built from the llama.cpp in its source distribution:

    pip download --no-binary :all: --no-deps llama-cpp-python
    tar xzf llama_cpp_python-*.tar.gz
    cmake -S llama_cpp_python-*/vendor/llama.cpp -B build -DLLAMA_CURL=OFF
    cmake --build build --target llama-perplexity
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import common

import codellm
from codellm.artifacts.ensure import ensure
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm_eval.files import manifest
from codellm_eval.perplexity import perplexity
from codellm_eval.perplexity.documents import Document, heldout_documents

MODEL = "codellm-demo"
SCHEMES = ("f16", "q8_0", "q4_k_m")


def chunks_of(text: str, size: int, count: int, path: Path) -> str:
    """The first `count` chunks of `text`, and a little more, so that both read the same tokens and stop there."""
    with codellm.load(str(path), threads=1) as model:
        ids = model.tokenizer.encode(text)[: size * count + size // 2]
        return model.tokenizer.decode(ids)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    source = find(MODEL).fetch()
    whole = "".join(document.text for document in heldout_documents())
    rows = []
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "heldout.txt"
        for scheme in SCHEMES:
            path = ensure(source, registry().scheme(scheme)).path
            assert path is not None
            text = chunks_of(whole, given.chunk, given.chunks, path)
            file.write_text(text, "utf-8")
            command = [
                str(given.program), "-m", str(path), "-f", str(file), "-c", str(given.chunk),
                "--chunks", str(given.chunks), "-t", "1",
            ]  # fmt: skip
            named = ["-m", f"{MODEL}-{scheme}.gguf", "-f", file.name]  # without this machine's folders
            said = subprocess.run(command, check=True, capture_output=True, text=True)
            found = re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)", said.stdout + said.stderr)
            assert found is not None, said.stderr
            with codellm.load(str(path), threads=1) as model:
                ours = perplexity.measure(model, [Document("", text)], protocol="llama-chunks", window=given.chunk)
            rows.append(
                {
                    "scheme": scheme,
                    "sha256": manifest.digest(path),
                    "llama_perplexity": {"perplexity": float(found[1]), "error": float(found[2])},
                    "codellm": {"perplexity": ours.perplexity, "error": ours.error},
                    "tokens": ours.tokens,
                    "command": shlex.join([given.program.name, *named, *command[5:]]),
                }
            )
            print(rows[-1], flush=True)
    common.write(
        given.output,
        model=MODEL,
        protocol="llama-chunks",
        chunk=given.chunk,
        chunks=given.chunks,
        text={"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()},
        rows=rows,
    )


if __name__ == "__main__":
    main()
