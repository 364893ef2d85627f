"""How far a batch computes something else than each of its sequences alone, by scheme.

    python tests/benchmarks/singles.py --output docs/results/singles.json

Beginnings of held-out documents are continued greedily with one thread: once all together, once each by itself. What is
told is the greatest distance between the log-probabilities of a token, up to where a text takes another turn, and how
many do.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common

import codellm
from codellm import Model, SamplingParams, Sequence
from codellm_eval.perplexity.documents import heldout_documents

MODEL = "codellm-demo"
SCHEMES = ("f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
SEQUENCES = 16
PROMPT, NEW = 100, 64
"""Tokens of the longest prompt, and of each continuation."""


def sequences(model: Model) -> list[Sequence]:
    texts = [document.text for document in heldout_documents()]
    params = SamplingParams(max_tokens=NEW, ignore_eos=True)
    return [
        Sequence(prompt_ids=model.tokenizer.encode(texts[n % len(texts)])[n : PROMPT - 4 * n], params=params)
        for n in range(SEQUENCES)
    ]


def run(model: Model, asked: list[Sequence]) -> list[list[tuple[int, float]]]:
    """Each sequence's tokens with their natural-log probabilities."""
    found: dict[Sequence, list[tuple[int, float]]] = {one: [] for one in asked}
    for tokens in model.run(asked):
        for token in tokens:
            one = token.sequence
            if not one.finished:
                assert token.logprob is not None
                found[one].append((token.id, token.logprob))
                one.token_ids.append(token.id)
                one.finished = len(one.token_ids) >= NEW
    return list(found.values())


def compare(scheme: str) -> dict[str, Any]:
    with (
        codellm.load(MODEL, scheme=scheme, threads=1) as alone,
        codellm.load(MODEL, scheme=scheme, threads=1, batch_size=SEQUENCES) as together,
    ):
        batch = run(together, sequences(together))
        singles = [run(alone, [one])[0] for one in sequences(alone)]
    greatest, turned = 0.0, 0
    for ours, theirs in zip(batch, singles, strict=True):
        for (id, logprob), (other, its) in zip(ours, theirs, strict=True):
            if id != other:
                turned += 1
                break
            greatest = max(greatest, abs(logprob - its))
    return {"scheme": scheme, "logprob_difference": greatest, "turned": turned}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for scheme in SCHEMES:
        rows.append(compare(scheme))
        print(rows[-1], flush=True)
    common.write(
        given.output,
        protocol=f"{SEQUENCES} prompts of up to {PROMPT} tokens, {NEW} new tokens each, greedy, 1 thread",
        model=MODEL,
        sequences=SEQUENCES,
        rows=rows,
    )


if __name__ == "__main__":
    main()
