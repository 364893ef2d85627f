"""Sampling: greedy, seeds, and draws that follow the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from codellm.model import Model
from codellm.sampling import SamplingParams
from codellm.testing.running import PROMPTS, drive, sequence
from codellm.testing.subject import Subject


def outputs(single: Model, **params: Any) -> Iterator[tuple[list[int], int, npt.NDArray[np.float32]]]:
    """What stood before each token of a few sequences, the token, and the logits [V] that it was taken from."""
    for prompt in PROMPTS:
        one = sequence(single, prompt, **params)
        drive(single, [one])
        assert one.token_ids, f"{prompt!r} gave no tokens at all ({one.error})."
        for position, id in enumerate(one.token_ids):
            before = one.prompt_ids + one.token_ids[:position]
            yield before, id, single.logits(before)


def test_greedy_is_the_argmax(subject: Subject, single: Model) -> None:
    """At temperature 0 every token has the greatest of the logits that `logits` gives for what stands before it."""
    for before, id, logits in outputs(single):
        short = float(logits.max() - logits[id])
        assert short <= subject.tolerance, (
            f"after {len(before)} tokens greedy decoding took token {id}, whose logit is {short:.2g} below the "
            f"greatest, that of {int(np.argmax(logits))}. Temperature 0 is the exact argmax, and logits() computes "
            "what run() computes."
        )


def test_ties_go_to_the_lowest_id(subject: Subject, single: Model) -> None:
    """Of several tokens with the greatest logit greedy decoding takes the one with the lowest id."""
    if subject.tolerance:
        pytest.skip("with a tolerance a tie cannot be told from two logits that are near each other")
    tied = [(id, logits) for _, id, logits in outputs(single) if np.sum(logits == logits.max()) > 1]
    if not tied:
        pytest.skip("no two logits were tied for the greatest")
    for id, logits in tied:
        ids = np.flatnonzero(logits == logits.max()).tolist()
        assert id == ids[0], (
            f"the tokens {ids} share the greatest logit, and greedy decoding took {id}: take the lowest id, as "
            "np.argmax does."
        )


def test_a_seed_repeats(single: Model) -> None:
    """One seed gives the same output every time, whatever was generated in between."""
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=24, ignore_eos=True)
    first = single.generate(PROMPTS[0], params)
    single.generate(PROMPTS[1], params)
    again = single.generate(PROMPTS[0], params)
    assert again.token_ids == first.token_ids, (
        f"seed 3 gave {first.token_ids} first and {again.token_ids} later. Seed each sequence's generator from "
        "(seed, index), and keep no random state from one run to the next; codellm.Sampler does so."
    )


def test_samples_of_one_seed_differ(model: Model) -> None:
    """Sample i of n draws from a seed derived from (seed, i): no two samples of a prompt are alike."""
    params = SamplingParams(temperature=2.0, seed=5, max_tokens=24, ignore_eos=True)
    found = [result.token_ids for result in model.generate_batch([PROMPTS[0]] * 6, params)]
    assert len(set(found)) == 6, (
        f"6 samples of one prompt at temperature 2 gave {len(set(found))} different outputs: sequence.index tells "
        "samples apart and goes into the seed."
    )


def test_seeds_differ(single: Model) -> None:
    """Another seed gives another output."""
    found = set()
    for seed in range(6):
        params = SamplingParams(temperature=2.0, seed=seed, max_tokens=24, ignore_eos=True)
        found.add(single.generate(PROMPTS[0], params).token_ids)
    assert len(found) == 6, f"6 seeds at temperature 2 gave {len(found)} different outputs: params.seed is not used."


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p"])
def test_the_narrowest_draw_is_the_likeliest(subject: Subject, single: Model, name: str) -> None:
    """top_k=1, a top_p near 0 and min_p=1 leave only the likeliest token, at any temperature."""
    value = {"top_k": 1, "top_p": 1e-6, "min_p": 1.0}[name]
    for before, id, logits in outputs(single, temperature=1.0, seed=1, **{name: value}):
        short = float(logits.max() - logits[id])
        assert short <= subject.tolerance, (
            f"with {name}={value} token {id} was drawn after {len(before)} tokens, {short:.2g} nats less likely than "
            f"the likeliest: {name} is not honoured."
        )


def test_a_repetition_is_penalized(subject: Subject, single: Model) -> None:
    """The logits of tokens that stand in prompt or output are divided by the penalty, or multiplied where negative."""
    penalty = 1.5
    for before, id, logits in outputs(single, repetition_penalty=penalty):
        seen = np.unique(before)
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        short = float(logits.max() - logits[id])
        assert short <= penalty * subject.tolerance, (
            f"with repetition_penalty={penalty} greedy decoding took token {id}, {short:.2g} below the greatest "
            "penalized logit: the penalty counts prompt and output, and comes before everything else."
        )


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_draws_follow_the_logits(subject: Subject, model: Model, temperature: float) -> None:
    """At temperature t tokens are drawn from softmax(logits / t): as surprising, on average, as that distribution."""
    count = 256
    drawn = [
        sequence(model, PROMPTS[0], index, temperature=temperature, seed=11, max_tokens=1) for index in range(count)
    ]
    ids = [found[0].id for found in drive(model, drawn).values()]
    assert len(ids) == count, f"{count} sequences of one token gave {len(ids)} tokens."
    scores = model.logits(drawn[0].prompt_ids).astype(np.float64) / temperature
    surprise = np.log(np.exp(scores - scores.max()).sum()) - (scores - scores.max())  # -log p, [V]
    mean = float(np.exp(-surprise) @ surprise)
    spread = float(np.sqrt(np.exp(-surprise) @ (surprise - mean) ** 2))
    seen = float(surprise[ids].mean())
    room = 5 * spread / count**0.5 + 2 * subject.tolerance / temperature
    assert abs(seen - mean) <= room, (
        f"{count} draws at temperature {temperature} have a mean surprise of {seen:.3g} nats; the distribution's is "
        f"{mean:.3g}, give or take {room:.2g}. Draw from softmax(logits / temperature)."
    )
