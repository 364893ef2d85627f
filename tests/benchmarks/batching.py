"""Many sequences of one prompt beside one: tokens per second of wall time, prefill included.

python tests/benchmarks/batching.py --output docs/results/batching.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import common

import codellm


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:starcoder2-3b")
    parser.add_argument("--scheme", default="q4_k_m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--repack", choices=("on", "off"), default="on")
    parser.add_argument("--output", type=Path, default=Path("batching.json"))
    options = parser.parse_args()

    most = max(options.sequences)
    prompt = list(range(100, 100 + options.prompt_tokens))
    params = codellm.SamplingParams(max_tokens=options.new_tokens, ignore_eos=True, temperature=1.0, seed=1)
    with codellm.load(
        options.model,
        scheme=options.scheme,
        threads=options.threads,
        batch_size=most,
        context_length=256,
        options={"repack": options.repack},
    ) as model:

        def throughput(count: int) -> float:
            start = time.perf_counter()
            results = model.generate_batch([prompt] * count, params)
            seconds = time.perf_counter() - start
            tokens = sum(len(result.token_ids) for result in results)
            assert tokens == count * options.new_tokens
            return tokens / seconds

        throughput(1)
        contestants = {str(count): (lambda count=count: throughput(count)) for count in options.sequences}
        values = common.rounds(options.repeats, contestants)
    common.write(
        options.output,
        protocol=f"{options.prompt_tokens} prompt and {options.new_tokens} new tokens, one prompt, wall time",
        model=options.model,
        scheme=options.scheme,
        threads=options.threads,
        repack=options.repack,
        tokens_per_second={name: common.summary(each) for name, each in values.items()},
        ratio_to_one=common.ratios(values, "1") if "1" in values else {},
    )
    for name, ratio in common.ratios(values, "1").items():
        print(f"{name} / 1: {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})")


if __name__ == "__main__":
    main()
