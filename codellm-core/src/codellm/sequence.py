"""One running request, and the tokens that a backend yields for it."""

from __future__ import annotations

import attrs

from codellm.sampling import SamplingParams


@attrs.define(eq=False, kw_only=True)
class Sequence:
    """The only mutable thing on the road: core writes it, backends read it (and set `error`, nothing else).

    `index` says which sample of its prompt this is: samples of one prompt are sequences with equal `prompt_ids` and
    the indexes 0, 1, 2, …; it goes into the seed, so that they differ while a prompt alone and in a batch agree.
    """

    index: int = 0
    prompt_ids: list[int]
    params: SamplingParams
    token_ids: list[int] = attrs.field(factory=list)
    finished: bool = False
    error: Exception | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """Let it end where it is, as whoever asked has gone: its slot is free within two steps, and its result says so.

        It may be waiting, running or done. Any thread may call this.
        """
        self.cancelled = self.finished = True


@attrs.frozen(eq=False)
class Token:
    """One sampled token. `logprob` is its natural-log probability under the model, before penalties and temperature."""

    id: int
    sequence: Sequence
    logprob: float | None = None
