"""HumanEval prompts in one batch, beside a loop over llama-cpp-python's `Llama`: tokens per second of wall time.

    python tests/benchmarks/humaneval_batching.py --output docs/results/humaneval-batching.json

Both take the same file, threads, prompts, sampling and number of tokens, prefill included, and take turns in every
round. `Llama` is the loop that a user writes, `llm(prompt, max_tokens=…)`; `Llama.generate` is the stricter peer, its
loop of tokens alone, without text. The peers never see an end of text, so that every request gives as many tokens, and
are fed as many prompts as make a fair rate, one after the other: a batch needs more, to be full. `Llama` keeps the
cells of its last prompt, so that further samples of it cost it no prefill.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import common

import codellm
from codellm_eval.humaneval.problems import load_problems

CONTEXT = 1024


def main() -> None:
    options = arguments()
    prompts = [problem.prompt.strip() for problem in load_problems().values()]
    sampled: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95} if options.n_samples > 1 else {"temperature": 0.0}

    with codellm.load(
        options.model,
        backend="llama-cpp",
        scheme=options.scheme,
        threads=options.threads,
        batch_size=options.batch_size,
        context_length=CONTEXT,
    ) as model:
        assert model.info.path is not None
        llama = make_llama(model.info.path, options.threads)
        params = codellm.SamplingParams(max_tokens=options.new_tokens, ignore_eos=True, seed=1, **sampled)
        ours = repeated(prompts[: options.prompts], options.n_samples)
        theirs = repeated(prompts[: options.prompts], options.n_samples)[: options.peer_requests]

        def batch() -> list[int]:
            return [len(result.token_ids) for result in model.generate_batch(ours, params)]

        def call() -> list[int]:
            answers = (llama(prompt, max_tokens=options.new_tokens, top_k=0, min_p=0.0, **sampled) for prompt in theirs)
            return [answer["usage"]["completion_tokens"] for answer in answers]

        def generate() -> list[int]:
            return [tokens_of(llama, prompt, options.new_tokens, sampled) for prompt in theirs]

        def rate(requests: Any) -> float:
            start = time.perf_counter()
            counts = requests()
            seconds = time.perf_counter() - start
            assert set(counts) == {options.new_tokens}
            return sum(counts) / seconds

        contestants = {"codellm": batch, "Llama": call, "Llama.generate": generate}
        model.generate_batch(ours[:2], params), llama(theirs[0], max_tokens=4)  # warm-up
        values = common.rounds(
            options.repeats, {name: (lambda each=each: rate(each)) for name, each in contestants.items()}
        )
    common.write(
        options.output,
        protocol=f"HumanEval prompts, {options.new_tokens} new tokens, wall time with prefill, alternating rounds",
        model=options.model,
        scheme=options.scheme,
        sampling=sampled,
        threads=options.threads,
        samples_of_a_prompt=options.n_samples,
        batch_size=options.batch_size,
        requests={"codellm": len(ours), "Llama": len(theirs), "Llama.generate": len(theirs)},
        tokens_per_second={name: common.summary(each) for name, each in values.items()},
        ratio_to_llama=common.ratios(values, "Llama"),
        ratio_to_generate=common.ratios(values, "Llama.generate"),
    )
    for peer in ("Llama", "Llama.generate"):
        ratio = common.ratios(values, peer)["codellm"]
        print(f"codellm / {peer}: {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="codellm-demo")
    parser.add_argument("--scheme", default="q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--n-samples", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--peer-requests", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=200, help="The study's number.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("humaneval-batching.json"))
    return parser.parse_args()


def repeated(prompts: Iterable[str], samples: int) -> list[str]:
    return [prompt for prompt in prompts for _ in range(samples)]


def make_llama(path: str, threads: int) -> Any:
    import llama_cpp

    llama_cpp.llama_cpp.llama_vocab_is_eog = lambda vocab, token: False
    return llama_cpp.Llama(path, n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False)


def tokens_of(llama: Any, prompt: str, count: int, sampled: dict[str, Any]) -> int:
    renamed = {"temp": sampled["temperature"], "top_p": sampled.get("top_p", 1.0)}
    steps = llama.generate(llama.tokenize(prompt.encode(), add_bos=False), top_k=0, min_p=0.0, **renamed)
    return sum(1 for _, _ in zip(range(count), steps, strict=False))


if __name__ == "__main__":
    main()
