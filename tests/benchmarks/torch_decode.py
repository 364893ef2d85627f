"""Single-sequence decode with torch: each mode and type beside transformers, and all as shares of the bandwidth limit.

    python tests/benchmarks/torch_decode.py --output docs/results/torch-decode.json

The limit of a contestant is the bandwidth of a read, measured beside it in every round, over the bytes of weights that
a token reads. Each is loaded in a process of its own and decodes when its turn comes, so memory must hold all of them:
name fewer with --contestants, or a smaller model. `generate` is transformers' own loop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import common

CONTESTANTS = {
    "torch-cpu eager float32": ("torch-cpu", "float32", "eager"),
    "torch-cpu jit float32": ("torch-cpu", "float32", "jit"),
    "torch-cpu compile float32": ("torch-cpu", "float32", "compile"),
    "torch-cpu eager bfloat16": ("torch-cpu", "bfloat16", "eager"),
    "torch-cpu jit bfloat16": ("torch-cpu", "bfloat16", "jit"),
    "torch-cpu compile bfloat16": ("torch-cpu", "bfloat16", "compile"),
    "transformers-cpu bfloat16": ("transformers-cpu", "bfloat16", ""),
    "generate bfloat16": ("transformers-cpu", "bfloat16", "generate"),
}

CHILD = """
import json, sys, time
import codellm
from codellm.system.machine import read_bandwidth
model, backend, dtype, mode, threads, new = sys.argv[1:]
options = {"mode": mode} if backend == "torch-cpu" else {}
spec = {"dtype": dtype, "threads": int(threads), "context_length": 512, "options": options}
with codellm.load(model, backend=backend, **spec) as loaded:
    new = int(new)

    def ours():
        params = codellm.SamplingParams(max_tokens=new, ignore_eos=True)
        return 1 / loaded.generate([1], params).timing.tpot

    def theirs():
        import torch
        times = []
        class Clock:
            def put(self, value): times.append(time.perf_counter())
            def end(self): pass
        with torch.inference_mode():
            loaded.engine.model.generate(torch.tensor([[1]]), attention_mask=torch.ones((1, 1), dtype=torch.long),
                max_new_tokens=new, min_new_tokens=new, do_sample=False, streamer=Clock(), pad_token_id=0)
        return (new - 1) / (times[-1] - times[-new])

    measure = theirs if mode == "generate" else ours
    measure()
    print(json.dumps(loaded.info.weight_bytes), flush=True)
    for _ in sys.stdin:
        read_bandwidth.cache_clear()
        print(json.dumps([measure(), read_bandwidth(int(threads))]), flush=True)
"""


class Contestant:
    """A process that holds one model and decodes when asked."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        arguments = [options.model, *CONTESTANTS[name], str(options.threads), str(options.new_tokens)]
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.weight_bytes: int = self._answer()
        self.shares: list[float] = []

    def _answer(self):
        line = self._child.stdout.readline()
        if not line:
            sys.exit("a contestant ended; its error stands above")
        return json.loads(line)

    def __call__(self) -> float:
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        rate, bandwidth = self._answer()
        self.shares.append(rate * self.weight_bytes / bandwidth)
        return rate

    def close(self) -> None:
        self._child.stdin.close()
        self._child.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:starcoder2-3b")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--contestants", nargs="+", default=["torch-cpu compile bfloat16", "generate bfloat16"],
                        choices=CONTESTANTS)  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("torch-decode.json"))
    options = parser.parse_args()
    contestants = {name: Contestant(name, options) for name in options.contestants}
    values = common.rounds(options.repeats, contestants)
    for each in contestants.values():
        each.close()
    common.write(
        options.output,
        protocol=f"tg{options.new_tokens} after one token, greedy, one sequence, context 512, alternating rounds",
        model=options.model,
        threads=options.threads,
        tokens_per_second={name: common.summary(each) for name, each in values.items()},
        share_of_bandwidth={name: common.summary(each.shares) for name, each in contestants.items()},
        weight_bytes={name: each.weight_bytes for name, each in contestants.items()},
    )
    for name, each in contestants.items():
        share = common.summary(each.shares)
        print(f"{name}: {share['median']:.3f} of the limit ({share['least']:.3f} to {share['greatest']:.3f})")


if __name__ == "__main__":
    main()
