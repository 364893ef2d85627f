"""How the next token is chosen: the parameters, with vLLM's names and meanings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs

from codellm.errors import InvalidValueError

MOST_LOGPROBS = 20
"""Tokens whose log-probabilities a request may ask for at each position."""


def _int(low: int, high: float = math.inf) -> Any:
    bounds = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidValueError(f"{attribute.name} must be a whole number {bounds}, not {value!r}")

    return check


def _float(low: float, high: float, *, above: bool = False) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (low < value if above else low <= value) or not value <= high:  # type: ignore[operator]
            bound = f"above {low:g}" if above else f"at least {low:g}"
            limit = "" if math.isinf(high) else f" and at most {high:g}"
            raise InvalidValueError(f"{attribute.name} must be a number {bound}{limit}, not {value!r}")

    return check


def _stops(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_stops(_: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    if not all(isinstance(stop, str) and stop for stop in value):
        raise InvalidValueError(f"{attribute.name} must hold non-empty strings, not {value!r}")


@attrs.frozen(kw_only=True)
class SamplingParams:
    """What to sample and when to end.

    The order is repetition penalty, temperature, top-k, top-p, min-p. Temperature 0 is greedy: the exact argmax, the
    lowest id on ties. Sample i of a prompt draws from a seed derived from (seed, i); a seed repeats within one backend
    and device, across backends only the distribution agrees.

    Raises:
        InvalidValueError: a value is out of its range; the message names the field.
    """

    max_tokens: int = attrs.field(default=256, validator=_int(1))
    temperature: float = attrs.field(default=0.0, validator=_float(0.0, 100.0))
    top_p: float = attrs.field(default=1.0, validator=_float(0.0, 1.0, above=True))
    top_k: int = attrs.field(default=0, validator=_int(0))
    """0 keeps the whole vocabulary."""
    min_p: float = attrs.field(default=0.0, validator=_float(0.0, 1.0))
    repetition_penalty: float = attrs.field(default=1.0, validator=_float(0.0, 100.0, above=True))
    stop: tuple[str, ...] = attrs.field(default=(), converter=_stops, validator=_check_stops)
    seed: int | None = attrs.field(default=None, validator=attrs.validators.optional(_int(0)))
    """None draws a fresh seed for each sequence."""
    ignore_eos: bool = False
    logprobs: int | None = attrs.field(default=None, validator=attrs.validators.optional(_int(0, MOST_LOGPROBS)))
    """How many of the likeliest tokens are told at each position, with their log-probabilities and that of the token
    that came: those of the model's own distribution, before temperature, penalties and cuts (what vLLM calls
    raw_logprobs). None tells nothing."""
