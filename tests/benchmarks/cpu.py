"""The CPU tables of docs/performance.md: the study's request on every row, and how a token's time grows.

    python tests/benchmarks/cpu.py --output docs/results/cpu

Each part is one `codellm bench` with a folder of its own; name some to measure those alone. A run that was killed goes
on with the same command. The files that llama.cpp runs are made where the cache lacks them, 20 GB for 3b and 34 GB for
7b; `codellm quantize` makes them before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

THREE, SEVEN = "dummy:starcoder2-3b", "dummy:starcoder2-7b"
ONCE = ["--repeats", "1"]
"""A row in float32, or at a context of thousands of tokens, takes minutes to half an hour each time."""
REQUEST = ["--task", "HumanEval/0", "--new-tokens", "200", *ONCE]
"""The first task: the study says that it gave one prompt of HumanEval, and not which."""
GROWTH = ["--prompt-tokens", "128", "--new-tokens", "32"]
GGUF = ["llama-cpp:f16", "llama-cpp:bf16", "llama-cpp:q8_0", "llama-cpp:q4_0", "llama-cpp:q4_k_m", "llama-cpp:q4_k_s"]
LLAMA, TORCH = "llama-cpp:q4_k_m", "torch-cpu::dtype=bfloat16,mode=compile"
"""The rows that grow."""

PARTS: dict[str, tuple[str, list[str], list[str]]] = {
    "3b": (THREE, REQUEST, [
        "torch-cpu::dtype=float32", "torch-cpu::dtype=float32,mode=jit", "torch-cpu::dtype=float32,mode=compile",
        "transformers-cpu::dtype=float32",
        "torch-cpu::dtype=bfloat16", "torch-cpu::dtype=bfloat16,mode=compile", "transformers-cpu::dtype=bfloat16",
        *GGUF,
    ]),
    "7b": (SEVEN, REQUEST, [
        "torch-cpu::dtype=float32", "torch-cpu::dtype=bfloat16", "torch-cpu::dtype=bfloat16,mode=compile",
        *GGUF,
    ]),
    "batch": (THREE, [*GROWTH, *ONCE, "--batch-size", "1,2,4,8,16,32"], [LLAMA, TORCH]),
    "context": (THREE, [*GROWTH, *ONCE, "--context", "128,1024,4032,8192"], [LLAMA, f"{TORCH},context_length=8448"]),
    "threads": (THREE, [*GROWTH, "--repeats", "3"], []),
}  # fmt: skip
"""Of each part the model, how it is measured, and the rows; those of `threads` are told by the machine."""
PICTURES = {"context": "context", "batch": "batch", "threads": "speed"}
"""The picture of a part that the page shows."""


def thread_rows() -> list[str]:
    """Those rows with 1, 2, 4 … threads, and with all physical cores."""
    from codellm.system.machine import default_threads

    most = default_threads()
    counts = sorted({most, *(1 << power for power in range(most.bit_length()) if 1 << power < most)})
    return [f"{LLAMA}:threads={count}" for count in counts] + [f"{TORCH},threads={count}" for count in counts]


Part = tuple[str, list[str], list[str]]


def command(part: str, asked: Part, output: Path, model: str | None, repeats: int | None) -> list[str]:
    """The `codellm bench` of a part, with `model` and `repeats` instead of its own where they are given."""
    own, how, rows = asked
    named = [word for row in rows or thread_rows() for word in ("--row", row)]
    folder = ["--output", str(output / part)]
    fewer = [] if repeats is None else ["--repeats", str(repeats)]  # of an option given twice the last counts
    return ["bench", "-m", model or own, "--no-quality", *how, *fewer, *named, *folder]


def tidy(folder: Path, picture: str | None) -> None:
    """Leave what the documentation holds: `codellm bench report` makes the rest again."""
    (folder / "report.html").unlink(missing_ok=True)
    for file in (folder / "plots").glob("*"):
        if file.name != f"{picture}.svg":
            file.unlink()
    if picture is None and (folder / "plots").exists():
        (folder / "plots").rmdir()


def main(arguments: Sequence[str] | None = None, parts: Mapping[str, Part] = PARTS) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all where none is named")
    parser.add_argument("--model", help="measure this one instead, to try the command")
    parser.add_argument("--repeats", type=int, help="measure each this often instead")
    parser.add_argument("--output", type=Path, default=Path("docs/results/cpu"))
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    codes = []
    for part in given.parts or parts:
        start = time.monotonic()
        codellm = str(Path(sys.executable).with_name("codellm"))
        words = command(part, parts[part], given.output, given.model, given.repeats)
        codes.append(subprocess.run([codellm, *words], check=False).returncode)
        tidy(given.output / part, PICTURES.get(part))
        print(f"{part}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
