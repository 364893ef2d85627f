"""One running request, and the tokens that a backend yields for it."""

from __future__ import annotations

import attrs
from attrs.validators import ge, instance_of

from codellm.sampling import SamplingParams

Ranked = tuple[tuple[int, float], ...]
"""Ids and their natural-log probabilities, likeliest first."""


@attrs.define(eq=False, kw_only=True)
class Sequence:
    """The only mutable thing on the road: core writes it, backends read it (and set `error` and `cached_tokens`).

    `index` says which sample of its prompt this is: samples of one prompt are sequences with equal `prompt_ids` and
    the indexes 0, 1, 2, …; it goes into the seed, so that they differ while a prompt alone and in a batch agree.

    `cached_tokens` counts the tokens of the prompt that were not computed for it, since what another sequence computed
    was taken; a backend that takes such writes it before the first token.
    """

    index: int = 0
    prompt_ids: list[int]
    params: SamplingParams
    token_ids: list[int] = attrs.field(factory=list)
    finished: bool = False
    error: Exception | None = None
    cancelled: bool = False
    cached_tokens: int = attrs.field(default=0, validator=[instance_of(int), ge(0)])

    def cancel(self) -> None:
        """Let it end where it is, as whoever asked has gone: its slot is free within two steps, and its result says so.

        It may be waiting, running or done. Any thread may call this.
        """
        self.cancelled = self.finished = True


@attrs.frozen(eq=False)
class Token:
    """One sampled token. `logprob` is its natural-log probability under the model, before penalties and temperature.

    Where the sequence asks for `logprobs`, `top` holds that many of the likeliest ids and their log-probabilities of
    the same kind, likeliest first and of equals the lowest id; and `logprob` is there too.
    """

    id: int
    sequence: Sequence
    logprob: float | None = None
    top: Ranked | None = None
