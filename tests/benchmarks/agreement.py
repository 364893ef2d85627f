"""How far torch-cuda chooses the same tokens as transformers-cuda, and the same ones again, on a GPU.

    python tests/benchmarks/agreement.py --output docs/results/gpu/agreement.json

Greedy answers to HumanEval's 164 prompts by the bundled model in bfloat16. Where a row first chooses another token than
the reference, `gap` is by how much the reference's own logits prefer its token, in nats: rounding turns a choice over
only where it is small. `repeats` tells whether a second run, of the model loaded anew, gave the same ids and the same
log-probabilities to the last bit.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import attrs
import common

import codellm
from codellm import Model, SamplingParams, Sequence
from codellm_eval.humaneval.problems import load_problems

REFERENCE = "transformers-cuda"
ROWS: dict[str, dict[str, Any]] = {
    REFERENCE: {"backend": "transformers-cuda", "batch_size": 32},
    "torch-cuda": {"backend": "torch-cuda"},
    "torch-cuda, 32 together": {"backend": "torch-cuda", "batch_size": 32},
    "torch-cuda:int8": {"backend": "torch-cuda", "scheme": "int8"},
    "torch-cuda:int4": {"backend": "torch-cuda", "scheme": "int4"},
}


@attrs.frozen
class Answer:
    """The ids that a model chose after a prompt, and the log-probability of each."""

    ids: list[int]
    logprobs: list[float | None]


def loaded(row: dict[str, Any], arguments: argparse.Namespace) -> Model:
    return codellm.load("codellm-demo", dtype="bfloat16", device=arguments.device, context_length=1024, **row)


def answers(model: Model, prompts: list[str], tokens: int) -> list[Answer]:
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    sequences = [Sequence(prompt_ids=model.tokenizer.encode(prompt), params=params) for prompt in prompts]
    found = {sequence: Answer([], []) for sequence in sequences}
    for step in model.run(iter(sequences)):
        for token in step:
            answer = found[token.sequence]
            if len(answer.ids) < tokens:
                answer.ids.append(token.id)
                answer.logprobs.append(token.logprob)
                token.sequence.finished = len(answer.ids) == tokens
    return list(found.values())


def same(ours: list[int], theirs: list[int]) -> int:
    """Tokens before the first that differs."""
    return next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(ours))


def compared(reference: Model, prompts: list[str], ours: list[Answer], theirs: list[Answer]) -> dict[str, Any]:
    gaps, kept, equal = [], 0, 0
    for prompt, mine, its in zip(prompts, ours, theirs, strict=True):
        at = same(mine.ids, its.ids)
        kept, equal = kept + at, equal + (at == len(its.ids))
        if at < len(its.ids):
            logits = reference.logits([*reference.tokenizer.encode(prompt), *its.ids[:at]])
            gaps.append(float(logits[its.ids[at]] - logits[mine.ids[at]]))
    return {
        "answers": len(prompts),
        "equal_answers": equal,
        "tokens": sum(len(answer.ids) for answer in theirs),
        "tokens_before_a_difference": kept,
        "median_gap": statistics.median(gaps) if gaps else None,
        "greatest_gap": max(gaps, default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=int, help="prompts")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    prompts = [problem.prompt for problem in load_problems().values()][: arguments.limit]
    found, rows = {}, {}
    for name, row in ROWS.items():
        with loaded(row, arguments) as model, loaded(ROWS[REFERENCE], arguments) as reference:
            found[name] = answers(model, prompts, arguments.tokens)
            rows[name] = compared(reference, prompts, found[name], found[REFERENCE])
        with loaded(row, arguments) as model:
            rows[name]["repeats"] = answers(model, prompts, arguments.tokens) == found[name]
        print(name, rows[name], flush=True)
    common.write(arguments.output, model="codellm-demo", dtype="bfloat16", tokens=arguments.tokens, rows=rows)


if __name__ == "__main__":
    main()
