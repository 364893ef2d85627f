"""Peak memory of loading and running a model, each setting in a process of its own; and of making its file.

    python tests/benchmarks/memory.py --output docs/results/memory.json

The peak is VmHWM, what was ever resident: private memory and the pages of the mapped file alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import common

RUN = """
import json, sys
import codellm
model, scheme, repack, context, threads = sys.argv[1:]
spec = {"context_length": int(context), "threads": int(threads), "options": {"repack": repack}}
with codellm.load(model, scheme=scheme, **spec) as loaded:
    prompt = [100 + place % 1000 for place in range(int(context) - 9)]
    result = loaded.generate(prompt, codellm.SamplingParams(max_tokens=8, ignore_eos=True))
    memory = loaded.memory()
    assert len(result.token_ids) == 8
    print(json.dumps({"repack": repack, "peak_bytes": memory.host_peak,
                      "file_bytes": __import__("os").path.getsize(loaded.info.path)}))
"""

MAKE = """
import json, resource, sys
from pathlib import Path
import tempfile
from codellm.artifacts.request import QuantizeRequest
from codellm.plugins.manager import manager
from codellm.plugins.registry import registry
from codellm.loading import find
source = find(sys.argv[1]).fetch()
with tempfile.TemporaryDirectory() as folder:
    request = QuantizeRequest(source=source, scheme=registry().scheme("bf16"), destination=Path(folder) / "model.gguf")
    made = manager().hook.codellm_quantize(request=request)
    print(json.dumps({"file_bytes": made.path.stat().st_size,
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def child(code: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    print(done.stdout, end="", flush=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:starcoder2-7b")
    parser.add_argument("--scheme", default="q4_k_m")
    parser.add_argument("--context", default="2048")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--output", type=Path, default=Path("memory.json"))
    options = parser.parse_args()
    converted = child(MAKE, options.model)
    settings = (options.model, options.scheme)
    subprocess.run([sys.executable, "-m", "codellm", "quantize", options.model, "-q", options.scheme], check=True)
    runs = [child(RUN, *settings, repack, options.context, options.threads) for repack in ("off", "on")]
    common.write(
        options.output,
        protocol=f"context {options.context}, a prompt of all but 9 tokens of it, 8 new tokens",
        model=options.model,
        scheme=options.scheme,
        threads=int(options.threads),
        conversion_to_bf16=converted,
        runs=runs,
    )


if __name__ == "__main__":
    main()
