"""Prefill of llama.cpp: by scheme, with and without repacking, by the chunk and by the compiler of the library.

    python tests/benchmarks/prefill.py --output docs/results/prefill.json

Each figure is a process of its own: a prompt alone, in tokens per second, and how long a sequence that generates waits
for its next token while that prompt is computed beside it, in seconds. The limit is what a matrix product of bfloat16
in torch reaches at the shapes of StarCoder2-3B, in tokens per second of its weights. `--library NAME=FOLDER` measures
with the shared libraries of FOLDER, which another compiler may have made; the installed ones are called `pip`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import common

ALONE = """
import json, sys, time
import codellm
from codellm import SamplingParams, Sequence

spec, tokens = json.loads(sys.argv[1]), int(sys.argv[2])
prompt = [100 + 7 * place % 3000 for place in range(tokens)]
beside = Sequence(index=0, prompt_ids=[5] * 8, params=SamplingParams(max_tokens=1000, ignore_eos=True))
arriving = Sequence(index=0, prompt_ids=prompt, params=SamplingParams(max_tokens=1, ignore_eos=True))

with codellm.load(backend="llama-cpp", batch_size=2, context_length=1024, **spec) as model:
    model.generate(prompt[:16], SamplingParams(max_tokens=2, ignore_eos=True))  # warm-up
    start = time.perf_counter()
    model.generate(prompt, SamplingParams(max_tokens=1, ignore_eos=True))
    rate, times = tokens / (time.perf_counter() - start), []

    def requests():
        yield beside
        while len(times) < 4:
            yield None
        yield arriving

    for step in model.run(requests()):
        if any(token.sequence is beside for token in step):
            times.append(time.perf_counter())
        if any(token.sequence is arriving for token in step):
            break
    waits = [after - before for before, after in zip(times[3:], times[4:])]
print(json.dumps({"tokens_per_second": rate, "wait": max(waits, default=0.0)}))
"""

LIMIT = """
import sys, time
import torch

torch.set_num_threads(int(sys.argv[1]))
shapes = [(3072, 3584), (3072, 3072), (3072, 12288), (12288, 3072)]  # qkv, output, up, down
weights = [torch.randn(inputs, outputs).bfloat16() for inputs, outputs in shapes]
rows = [torch.randn(512, inputs).bfloat16() for inputs, _ in shapes]
best = float("inf")
for _ in range(5):
    start = time.perf_counter()
    for row, weight in zip(rows, weights):
        row @ weight
    best = min(best, time.perf_counter() - start)
print(512 / (30 * best))
"""


def main() -> None:
    options = arguments()
    libraries = {"pip": "", **dict(each.split("=", 1) for each in options.library)}

    def measured(library: str, scheme: str, repack: str, chunk: int) -> dict[str, float]:
        spec = {"model": options.model, "scheme": scheme, "threads": options.threads}
        spec["options"] = {"repack": repack, "chunk": str(chunk)}
        found: dict[str, float] = json.loads(child(ALONE, libraries[library], json.dumps(spec), str(options.tokens)))
        return found

    settings = [
        (library, scheme, repack, chunk)
        for library, scheme, repack, chunk in itertools.product(
            libraries, options.schemes, ("on", "off"), options.chunks
        )
        if repack == "on" or scheme.startswith("q")
    ]
    waits: dict[str, list[float]] = {name(*each): [] for each in settings}

    def rate(setting: Any) -> float:
        found = measured(*setting)
        waits[name(*setting)].append(found["wait"])
        return found["tokens_per_second"]

    contestants = {name(*each): (lambda each=each: rate(each)) for each in settings}
    limit = {} if options.no_limit else {"limit": lambda: float(child(LIMIT, "", str(options.threads)))}
    values = common.rounds(options.repeats, {**contestants, **limit})
    common.write(
        options.output,
        protocol=f"a prompt of {options.tokens} tokens, each figure in a process of its own, alternating rounds",
        model=options.model,
        threads=options.threads,
        tokens_per_second={each: common.summary(rates) for each, rates in values.items()},
        ratio_to_first=common.ratios(values, name(*settings[0])),
        wait_seconds={each: common.summary(seconds) for each, seconds in waits.items()},
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:starcoder2-3b")
    parser.add_argument("--schemes", nargs="+", default=["q4_k_m"])
    parser.add_argument("--chunks", type=int, nargs="+", default=[128])
    parser.add_argument("--library", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-limit", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("prefill.json"))
    return parser.parse_args()


def name(library: str, scheme: str, repack: str, chunk: int) -> str:
    return f"{library} {scheme} repack={repack} chunk={chunk}"


def child(program: str, library: str, *given: str) -> str:
    env = os.environ | ({"LLAMA_CPP_LIB_PATH": str(Path(library).resolve())} if library else {})
    done = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True, env=env, check=True)
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
