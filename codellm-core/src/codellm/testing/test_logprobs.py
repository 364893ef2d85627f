"""Log-probabilities beside the tokens: of those that came, and of the likeliest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from codellm.model import Model
from codellm.sequence import Token
from codellm.testing.running import PROMPTS, drive, sequence
from codellm.testing.subject import Subject

_LIKELY = 3.0
"""Nats below 0 down to which the stated tolerance holds as it is; below, it grows with the distance."""


@pytest.mark.parametrize("params", [{}, {"temperature": 2.0, "seed": 1}], ids=["cold", "hot"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_likeliest_are_told(subject: Subject, single: Model, params: dict[str, Any], count: int) -> None:
    """With `logprobs=K` a token's `top` holds the K likeliest, before temperature, penalty and cuts."""
    for prompt in PROMPTS[:3]:
        one = sequence(single, prompt, logprobs=count, repetition_penalty=1.2, **params)
        for position, token in enumerate(drive(single, [one]).get(one, [])):
            _hold(token, count, single.logits(one.prompt_ids + one.token_ids[:position]), subject)


def test_some_ask_and_some_do_not(model: Model) -> None:
    """In a batch each sequence is told as many as it asks for, whatever the others do."""
    asked = [None, 3, 0, None, 1, 5]
    batch = [sequence(model, PROMPTS[0], index, logprobs=count) for index, count in enumerate(asked)]
    found = drive(model, batch)
    for one in batch:
        told = {None if token.top is None else len(token.top) for token in found[one]}
        count = one.params.logprobs
        assert count is None or told == {count}, (
            f"in a batch a sequence with logprobs={count} was told of {told} tokens: each asks for itself."
        )


def _hold(token: Token, count: int, logits: npt.NDArray[np.float32], subject: Subject) -> None:
    """Hold what a token tells to the `logits` [V] that it was drawn from."""
    scores = logits.astype(np.float64) - float(logits.max())
    scores -= np.log(np.exp(scores).sum())
    assert token.top is not None, f"with logprobs={count} a token's `top` is None: codellm.Sampler fills it."
    assert token.logprob is not None, f"with logprobs={count} a token's `logprob` is None."
    expected = np.sort(scores)[::-1][:count]
    assert len(token.top) == len(expected), (
        f"with logprobs={count} {len(token.top)} of the likeliest tokens are told, in a vocabulary of {len(scores)}."
    )
    ids = [token.id, *(id for id, _ in token.top)]
    told = np.array([token.logprob, *(logprob for _, logprob in token.top)])
    own = scores[ids]
    # what rounds moves a token that hardly anyone would choose by more nats than the likely ones
    room = subject.scores.stated * np.maximum(1.0, -own / _LIKELY)
    far = np.abs(told - own)
    far[1:] = np.maximum(far[1:], np.abs(told[1:] - expected))
    worst = int(np.argmax(far - room))
    assert (far <= room).all(), (
        f"with logprobs={count} token {token.id} is told with {token.logprob:.3g} and beside it {token.top}, token "
        f"{ids[worst]} {far[worst]:.2g} nats from what logits() gives: they are the log-softmax of the model's own "
        "logits, likeliest first."
    )
