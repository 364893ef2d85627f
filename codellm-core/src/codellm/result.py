"""What a request gave, and when."""

from __future__ import annotations

from typing import Literal

import attrs

from codellm.sequence import Ranked

FinishReason = Literal["stop", "length", "eos", "cancelled", "error"]


@attrs.frozen
class Timing:
    """Seconds on one clock (`time.perf_counter`): the request's start, the arrival of each token, its end."""

    start: float
    token_times: tuple[float, ...]
    end: float

    @property
    def ttft(self) -> float | None:
        """Time to first token: from the request's start to the first token; None where none came."""
        return self.token_times[0] - self.start if self.token_times else None

    @property
    def itl(self) -> tuple[float, ...]:
        """Inter-token latency: the gap before each token after the first."""
        return tuple(b - a for a, b in zip(self.token_times, self.token_times[1:], strict=False))

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first: (end - first token) / (n - 1); undefined (None) below two tokens."""
        n = len(self.token_times)
        return (self.token_times[-1] - self.token_times[0]) / (n - 1) if n > 1 else None


@attrs.frozen
class TokenLogprobs:
    """Natural-log probabilities at one position: of the token that came, and of the likeliest, likeliest first."""

    id: int
    logprob: float
    top: Ranked


@attrs.frozen
class Result:
    """The output of one sequence.

    `text` ends before the stop string that ended it and holds no end-of-text token; `token_ids` holds every token that
    counted, the one that ended the sequence included. `error` is set where `finish_reason` is "error".
    `cached_tokens` of the prompt were not computed for this request: a time to first token is one of the others alone.
    `logprobs` are those of each of `token_ids`, where they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    timing: Timing
    error: Exception | None = None
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] | None = None
