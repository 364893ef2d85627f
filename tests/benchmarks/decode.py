"""Single-sequence decode: codellm beside llama-bench and llama-cpp-python's `Llama`, on one file, with as many threads.

    python tests/benchmarks/decode.py --output docs/results/decode.json

All three take turns in every round and stay loaded but for llama-bench, which loads anew and does not count it. The
figure is tokens per second; a ratio is paired within its round. llama-bench is taken from the PATH: build it from the
sources in llama-cpp-python's source distribution, with the installed library's flags.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import common

import codellm


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama-bench", default="llama-bench")
    parser.add_argument("--model", default="dummy:starcoder2-3b")
    parser.add_argument("--scheme", default="q4_k_m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("decode.json"))
    options = parser.parse_args()

    with codellm.load(options.model, scheme=options.scheme, threads=options.threads, context_length=512) as model:
        path = model.info.path

        def ours() -> float:
            params = codellm.SamplingParams(max_tokens=options.new_tokens, ignore_eos=True)
            timing = model.generate([1], params).timing
            return 1 / timing.tpot

        def bench() -> float:
            command = [options.llama_bench, "-m", path, "-p", "0", "-n", str(options.new_tokens)]
            command += ["-t", str(options.threads), "-r", "1", "-o", "json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return float(json.loads(done.stdout)[0]["avg_ts"])

        llama = make_llama(path, options.threads)

        def loop() -> float:
            llama.reset()
            generator = llama.generate([1], top_k=1, temp=0.0)
            next(generator)
            start = time.perf_counter()
            for _ in range(options.new_tokens - 1):
                next(generator)
            return (options.new_tokens - 1) / (time.perf_counter() - start)

        ours(), bench(), loop()  # warm-up
        values = common.rounds(options.repeats, {"codellm": ours, "llama-bench": bench, "Llama": loop})
    common.write(
        options.output,
        protocol=f"tg{options.new_tokens} after one token, greedy, one sequence, alternating rounds",
        model=options.model,
        scheme=options.scheme,
        threads=options.threads,
        tokens_per_second={name: common.summary(each) for name, each in values.items()},
        ratio_to_llama_bench=common.ratios(values, "llama-bench"),
    )
    for name, ratio in common.ratios(values, "llama-bench").items():
        print(f"{name} / llama-bench: {ratio['median']:.3f} ({ratio['least']:.3f} to {ratio['greatest']:.3f})")


def make_llama(path: str, threads: int):
    import llama_cpp

    return llama_cpp.Llama(path, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)


if __name__ == "__main__":
    main()
