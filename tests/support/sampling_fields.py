"""What every field of `SamplingParams` must do, and where to go for one that does nothing.

A field with an entry in `FIELDS` is held to it by each sampler (`hold_draws`) and by the road on which sequences end
and results are made (`hold_result`); `lacking` names the fields that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np

from codellm.model import Model
from codellm.result import Result
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence

COUNT = 128
"""Draws that a field is judged by."""

WHERE = """a field of SamplingParams needs
  tests/support/sampling_fields.py         its entry in FIELDS: a value, and what that value must do
  codellm-core/src/codellm/sampler.py      Sampler, which draws on the host, and
  codellm-core/src/codellm/torch/sampling.py   BatchSampler, which draws on the device, to read it; or
  codellm-core/src/codellm/generation.py   to read it, where it says when a sequence ends or what is told of it
  codellm-core/src/codellm/cli/options.py  its option in _SAMPLING
  codellm-core/src/codellm/testing/        a check in test_sampling.py or test_endings.py, and
  tests/support/broken/                    a backend that breaks it, marked @mishandles, which that check fails"""

Choose = Callable[[list[Sequence]], list[int]]
"""The next token of each sequence, all of them with one prompt."""


@attrs.frozen
class Drawn:
    """A field that says which token is drawn.

    With `value`, `holds` is true of the ids drawn from logits [V] after a prompt; without it it is not. Of the ids
    each two are of one index, so of one seed. `beside` are parameters without which the field does nothing.
    """

    value: Any
    holds: Callable[[Seq[int], np.ndarray, Seq[int]], bool]
    beside: Mapping[str, Any] = MappingProxyType({"seed": 3, "temperature": 2.0})


@attrs.frozen
class Ends:
    """A field that says when a sequence ends: with `value`, `holds` is true of the result; without it it is not."""

    value: Any
    holds: Callable[[Result], bool]


def _among(kept: Callable[[np.ndarray], np.ndarray]) -> Callable[[Seq[int], np.ndarray, Seq[int]], bool]:
    """Whether all that is drawn is among the ids that `kept` leaves of the probabilities [V] at temperature 2."""

    def holds(ids: Seq[int], logits: np.ndarray, _: Seq[int]) -> bool:
        weights = np.exp((logits.astype(np.float64) - logits.max()) / 2.0)
        return set(ids) <= set(kept(weights / weights.sum()).tolist())

    return holds


def _nucleus(probabilities: np.ndarray, share: float) -> np.ndarray:
    order = np.argsort(-probabilities, kind="stable")
    return order[: int(np.searchsorted(probabilities[order].cumsum(), share)) + 1]


def _penalized(ids: Seq[int], logits: np.ndarray, prompt: Seq[int]) -> bool:
    """Whether each is the argmax where what stands in the prompt is a fifth as likely."""
    seen, scores = np.unique(prompt), logits.astype(np.float64)
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / 5.0, scores[seen] * 5.0)
    return set(ids) == {int(scores.argmax())}


@attrs.frozen
class Tells:
    """A field that says what is told beside the text: with `value`, `holds` is true of the result, else not."""

    value: Any
    holds: Callable[[Result], bool]


def _told(result: Result) -> bool:
    """Whether the token that came and one other are told at each position, which came and then the lowest id."""
    found = result.logprobs or ()
    return len(found) == len(result.token_ids) and all(
        (one.id, [id for id, _ in one.top]) == (id, [id, 0]) for one, id in zip(found, result.token_ids, strict=True)
    )


FIELDS: Mapping[str, Drawn | Ends | Tells] = {
    "max_tokens": Ends(3, lambda result: (result.text, result.finish_reason) == ("hel", "length")),
    "stop": Ends(("l",), lambda result: (result.text, result.finish_reason) == ("he", "stop")),
    "ignore_eos": Ends(True, lambda result: (result.text[:10], result.finish_reason) == ("hellohello", "length")),
    "temperature": Drawn(2.0, lambda ids, *_: len(set(ids)) > 1, {"seed": 3}),
    "top_k": Drawn(2, _among(lambda probabilities: np.argsort(-probabilities, kind="stable")[:2])),
    "top_p": Drawn(0.3, _among(lambda probabilities: _nucleus(probabilities, 0.3))),
    "min_p": Drawn(0.9, _among(lambda probabilities: np.flatnonzero(probabilities >= 0.9 * probabilities.max()))),
    "repetition_penalty": Drawn(5.0, _penalized, {}),
    "logprobs": Tells(2, _told),
    "seed": Drawn(3, lambda ids, *_: ids[::2] == ids[1::2], {"temperature": 2.0}),
}
DRAWN = {name: field for name, field in FIELDS.items() if isinstance(field, Drawn)}
ENDS = {name: field for name, field in FIELDS.items() if isinstance(field, Ends)}
TELLS = {name: field for name, field in FIELDS.items() if isinstance(field, Tells)}


def lacking(params: type[SamplingParams], known: Iterable[str]) -> None:
    """See that every field of `params` is among those that are `known`."""
    __tracebackhide__ = True
    missing = [field.name for field in attrs.fields(params) if field.name not in set(known)]
    assert not missing, f"{', '.join(missing)}: {WHERE}"


def hold_draws(
    name: str, choose: Choose, logits: np.ndarray, prompt: list[int], where: str, field: Drawn | None = None,
    params: type[SamplingParams] = SamplingParams,
) -> None:  # fmt: skip
    """Hold what `choose` draws, whose code is at `where`, from `logits` [V] after `prompt` to what a field says."""
    __tracebackhide__ = True
    field = field or DRAWN[name]

    def ids(**own: Any) -> list[int]:
        asked = params(max_tokens=1, ignore_eos=True, **field.beside, **own)
        return choose([Sequence(index=place // 2, prompt_ids=[*prompt], params=asked) for place in range(COUNT)])

    drawn = ids(**{name: field.value})
    assert field.holds(drawn, logits, prompt), (
        f"{name}={field.value!r} does nothing, or the wrong thing: the ids {sorted(set(drawn))} are drawn. "
        f"Read it in {where}. All in all {WHERE}"
    )
    drawn = ids()
    assert not field.holds(drawn, logits, prompt), (
        f"without {name} the ids {sorted(set(drawn))} are drawn, which is what {name}={field.value!r} asks for. "
        f"Read it in {where}; or mend its entry in tests/support/sampling_fields.py, which cannot tell the two apart."
    )


def hold_result(name: str, model: Model) -> None:
    """Hold the result of what `model` says, which is "hello" and end-of-text again and again, to what a field says."""
    __tracebackhide__ = True
    field = (ENDS | TELLS)[name]
    for own, expected in (({name: field.value}, True), ({}, False)):
        result = model.generate("x", SamplingParams(**own))
        assert field.holds(result) == expected, (
            f"with {own or 'defaults'} the text is {result.text!r}, ended by {result.finish_reason!r}. "
            f"Read {name} in codellm-core/src/codellm/generation.py. All in all {WHERE}"
        )
