"""Random schedules of live requests: each must get what it gets alone, whatever comes, ends or fails beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from codellm.errors import BackendError, ContextLengthError, InvalidValueError
from codellm.model import Model
from codellm.sampler import log_softmax
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence, Token

NAN = 7
"""The id whose embedding is NaN in the models that run schedules: whoever has it in the prompt fails while computed."""
CONTEXT, CHUNK, VOCABULARY = 96, 16, 250
MOST = 14
"""Tokens that a request asks for at most."""

PARAMS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalized": {"repetition_penalty": 1.3},
    "drawn": {"temperature": 1.0, "seed": 3},
}


def _ids(seed: int, length: int) -> tuple[int, ...]:
    return tuple(int(id) for id in np.random.default_rng(seed).integers(20, VOCABULARY, length))


PROMPTS = {
    "one": _ids(1, 1),
    "short": _ids(2, 6),
    "middle": _ids(3, 20),
    "long": _ids(4, 45),
    "long, other end": _ids(4, 40) + _ids(5, 8),
    "almost full": _ids(6, CONTEXT - 3),
    "full": _ids(7, CONTEXT),
    "begins as almost full": _ids(6, 34) + _ids(8, 5),
}
NANS = {"short": (30, NAN, 31), "long": (*_ids(9, 40), NAN, *_ids(9, 9)), "shared": (*_ids(4, 36), NAN, 40)}
REFUSED: dict[str, tuple[int, ...]] = {
    "empty": (),
    "negative": (-1,),
    "no token": (5, 10**6),
    "too long": (21,) * (CONTEXT + 1),
}


@attrs.frozen
class Ask:
    """A request by the name of its prompt; `patience` counts the steps after which it is cancelled."""

    prompt: str
    tokens: int = MOST
    params: str = "greedy"
    index: int = 0
    patience: int | None = None


@attrs.frozen
class Refused:
    """A request that no backend computes."""

    prompt: str


@attrs.frozen
class Fails:
    """A request whose logits are NaN."""

    prompt: str


@attrs.frozen
class Gap:
    """Times that the queue has nothing, while something runs."""

    length: int


Schedule = list[Ask | Refused | Fails | Gap]

_ASKS = st.builds(
    Ask,
    st.sampled_from(sorted(PROMPTS)),
    st.integers(1, MOST),
    st.sampled_from(sorted(PARAMS)),
    st.integers(0, 1),
    st.none() | st.integers(0, 9),
)
SCHEDULES: st.SearchStrategy[Schedule] = st.lists(
    st.one_of(
        _ASKS,
        _ASKS,
        st.builds(Ask, st.sampled_from(["short", "long"]), st.integers(1, MOST)),  # equal prompts
        st.builds(Gap, st.integers(1, 20)),
        st.builds(Refused, st.sampled_from(sorted(REFUSED))),
        st.builds(Fails, st.sampled_from(sorted(NANS))),
    ),
    max_size=40,
)
MOVED: Schedule = [
    *(Ask("long"), Ask("short", 2), Ask("almost full", 9), Gap(3)),  # the last of them moves to where the second was
    *(Ask("short"), Ask("short", 5, index=1), Ask("middle", 3, "drawn"), Gap(9), Ask("short", 9)),
]
"""A prompt asked again whose cells a move has overwritten."""

Run = Callable[[Iterable[Sequence | None]], Iterator[list[Token]]]


class Alone:
    """What each request gets on a model of one sequence, computed once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._known: dict[tuple[str, str, int], list[Token]] = {}

    def tokens(self, ask: Ask) -> list[Token]:
        """All tokens that it could get."""
        key = ask.prompt, ask.params, ask.index
        if key not in self._known:
            found: list[Token] = []
            one = _sequence(PROMPTS[ask.prompt], MOST, ask.params, ask.index)
            for tokens in self.model.run([one]):
                _take(tokens, {one: found})
            self._known[key] = found
        return self._known[key]


def hold(run: Run, alone: Alone, schedule: Schedule, tolerance: float) -> None:
    """Run `schedule`, and hold each request to its own: log-probabilities may differ by `tolerance` nats."""
    queue = _Queue(schedule)
    for tokens in run(queue.live()):
        _take(tokens, queue.found)
        queue.lose_patience()
    forks = 0
    for one, each in queue.asked.items():
        if isinstance(each, Ask):
            forks += _hold_one(alone, each, one, queue.found[one], tolerance)
        else:
            assert not queue.found[one], each
            kinds = (BackendError,) if isinstance(each, Fails) else (InvalidValueError, ContextLengthError)
            assert isinstance(one.error, kinds), (each, one.error)
    assert forks <= 1  # a draw falls between two tokens by rounding once in ten thousand times


USES = ("run", "score", "logits", "distributions")


def hold_after_nan(model: Model, use: str) -> None:
    """Have `model` compute NaN in one of the `USES`, and hold what it scores next to what it scored before."""
    ids = list(range(20, 60))
    expected = model.score([ids])[0]
    bad = [NAN, *range(30, 80)]
    if use == "run":
        hold(model.run, Alone(model), [Fails("long")], 0)
    elif use == "distributions":
        assert all(np.isnan(block).all() for block in model.distributions(bad))
    else:
        found = model.score([bad])[0] if use == "score" else model.logits(bad)
        assert np.isnan(found).all()
    np.testing.assert_array_equal(model.score([ids])[0], expected)


class _Queue:
    """A schedule as it comes to a backend."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.asked: dict[Sequence, Ask | Refused | Fails] = {}
        """Those that were given out, in their order."""
        self.found: dict[Sequence, list[Token]] = {}
        self._steps: dict[Sequence, int] = {}

    def live(self) -> Iterator[Sequence | None]:
        """What `Model.run` takes; None only while something runs."""
        for each in self._schedule:
            if not isinstance(each, Gap):
                one = _of(each)
                self.asked[one], self.found[one], self._steps[one] = each, [], 0
                yield one
                continue
            for _ in range(each.length):
                if all(one.finished or one.error is not None for one in self.asked):
                    break
                yield None

    def lose_patience(self) -> None:
        """Cancel those that have waited for their number of steps."""
        for one, each in self.asked.items():
            self._steps[one] += 1
            limit = each.patience if isinstance(each, Ask) else None
            one.finished |= limit is not None and self._steps[one] > limit


def _hold_one(alone: Alone, ask: Ask, one: Sequence, mine: list[Token], tolerance: float) -> bool:
    """Hold the tokens that `one` got to those it gets alone → whether rounding made a draw fall otherwise."""
    other = alone.tokens(ask)
    assert len(mine) <= len(other), ask  # none past the context's end
    for place, (token, expected) in enumerate(zip(mine, other, strict=False)):
        assert token.logprob is not None
        assert expected.logprob is not None
        if token.id != expected.id:
            logits = alone.model.logits([*one.prompt_ids, *one.token_ids[:place]])
            assert abs(log_softmax(logits[None])[0, token.id] - token.logprob) <= tolerance, (ask, place)
            if ask.params == "greedy":
                assert logits[expected.id] - logits[token.id] <= 2 * tolerance, (ask, place)
            return ask.params == "drawn"
        assert abs(token.logprob - expected.logprob) <= tolerance, (ask, place)
    if not one.finished:
        room = CONTEXT - len(one.prompt_ids) + 1  # the last token is not computed
        assert len(mine) == room, ask
        assert isinstance(one.error, ContextLengthError), (ask, one.error)
    elif ask.patience is None:
        assert len(mine) == ask.tokens, ask
        assert one.error is None, (ask, one.error)
    return False


def _of(each: Ask | Refused | Fails) -> Sequence:
    if isinstance(each, Ask):
        return _sequence(PROMPTS[each.prompt], each.tokens, each.params, each.index)
    return _sequence(REFUSED[each.prompt] if isinstance(each, Refused) else NANS[each.prompt], MOST, "greedy", 0)


def _sequence(prompt: tuple[int, ...], tokens: int, params: str, index: int) -> Sequence:
    more = PARAMS[params]
    return Sequence(
        index=index, prompt_ids=list(prompt), params=SamplingParams(max_tokens=tokens, ignore_eos=True, **more)
    )


def _take(tokens: list[Token], found: dict[Sequence, list[Token]]) -> None:
    """What core does with a step's tokens."""
    for token in tokens:
        one = token.sequence
        if not one.finished:
            one.token_ids.append(token.id)
            found[one].append(token)
            one.finished = len(one.token_ids) >= one.params.max_tokens
