"""What the harness adds to raw generation: requests as `codellm bench` makes them, beside the same loop over Model.run.

    python tests/benchmarks/harness.py --output docs/results/harness.json

Both generate the same tokens with the same loaded model and take turns; the figure is the ratio of their times, from
before the request to its last token, paired within a round. The raw loop does what nobody can leave out: it appends
each token and ends the sequence. The harness adds the hooks, the decoding of text, the clock at every token, the count.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import common

import codellm
from codellm.sequence import Sequence
from codellm_eval.bench.measure.prompt import RandomPrompts
from codellm_eval.bench.measure.requests import request, requests


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="codellm-demo")
    parser.add_argument("--scheme", default="q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=51)
    parser.add_argument("--output", type=Path, default=Path("harness.json"))
    options = parser.parse_args()

    spec = {"scheme": options.scheme, "threads": options.threads, "batch_size": options.batch_size}
    length = options.prompt_tokens + options.new_tokens
    with codellm.load(options.model, context_length=length, **spec) as model:
        prompts = RandomPrompts(model.tokenizer, seed=0)

        def draw(count: int) -> list[list[int]]:
            return [prompts.draw(options.prompt_tokens) for _ in range(count)]

        def harness() -> float:
            [prompt] = draw(1)
            start = time.perf_counter()
            request(model, prompt, options.new_tokens)
            return time.perf_counter() - start

        def harness_together() -> float:
            drawn = draw(options.batch_size)
            start = time.perf_counter()
            requests(model, drawn, options.new_tokens)
            return time.perf_counter() - start

        def raw() -> float:
            return run(model, draw(1), options.new_tokens)

        def raw_together() -> float:
            return run(model, draw(options.batch_size), options.new_tokens)

        contestants = {"raw": raw, "harness": harness, "raw batch": raw_together, "harness batch": harness_together}
        for each in contestants.values():
            each()  # warm-up
        values = common.rounds(options.repeats, contestants)

    one = common.ratios({name: values[name] for name in ("raw", "harness")}, "raw")["harness"]
    batch = common.ratios({name: values[name] for name in ("raw batch", "harness batch")}, "raw batch")["harness batch"]
    common.write(
        options.output,
        protocol=(
            f"{options.prompt_tokens} prompt and {options.new_tokens} new tokens, greedy, one sequence and "
            f"{options.batch_size} together, alternating rounds, ratio of times paired within a round"
        ),
        model=options.model,
        scheme=options.scheme,
        threads=options.threads,
        seconds={name: common.summary(each) for name, each in values.items()},
        harness_over_raw=one,
        harness_over_raw_batch=batch,
    )
    for name, ratio in (("one sequence", one), (f"{options.batch_size} together", batch)):
        least, greatest = quartiles(ratio["values"])
        print(f"{name}: harness / raw {ratio['median']:.4f} (half of the rounds {least:.4f} to {greatest:.4f})")


def run(model: codellm.Model, prompts: list[list[int]], new_tokens: int) -> float:
    """Seconds of the loop that everybody has to write."""
    params = codellm.SamplingParams(max_tokens=new_tokens, ignore_eos=True)
    start = time.perf_counter()
    sequences = [Sequence(prompt_ids=prompt, params=params) for prompt in prompts]
    for tokens in model.run(sequences):
        for token in tokens:
            sequence = token.sequence
            if not sequence.finished:
                sequence.token_ids.append(token.id)
                sequence.finished = len(sequence.token_ids) == new_tokens
    seconds = time.perf_counter() - start
    assert all(len(sequence.token_ids) == new_tokens for sequence in sequences)
    return seconds


def quartiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]


if __name__ == "__main__":
    main()
