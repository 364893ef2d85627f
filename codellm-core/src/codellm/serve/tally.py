"""What was asked of one model since the server began: plain numbers, so that a token costs next to nothing."""

from __future__ import annotations

import copy
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence as Seq

import attrs

from codellm.result import FinishReason, Result
from codellm.sequence import Sequence

FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
INTER_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Histogram:
    """How many values lie in each bucket: up to each of `bounds`, and above the last."""

    def __init__(self, bounds: Seq[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value, which belongs to the first bucket whose bound it does not exceed."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@attrs.define
class Counts:
    """What became of the sequences that a model was given.

    Tokens of a prompt count once one of the output has come; `cached_tokens` of them were not computed, for
    `prefix_hits` sequences. `first_token` has seconds from a request's arrival in the queue to the first token of each
    of its sequences, `inter_token` the gaps before each later one.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefix_hits: int = 0
    generated_tokens: int = 0
    finished: Counter[FinishReason] = attrs.field(factory=Counter)
    first_token: Histogram = attrs.field(factory=lambda: Histogram(FIRST_TOKEN_SECONDS))
    inter_token: Histogram = attrs.field(factory=lambda: Histogram(INTER_TOKEN_SECONDS))


class Tally:
    """Counts for one model name, whichever engine runs it. Any thread may call this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._arrived: dict[Sequence, float] = {}  # of those that run; a cancelled one runs until its result is there

    def begin(self, sequence: Sequence, arrived: float) -> None:
        """Note that a sequence is given to the model; it was asked for at `arrived`, in `time.perf_counter` seconds."""
        with self._lock:
            self._arrived[sequence] = arrived

    def end(self, sequence: Sequence, result: Result) -> None:
        """Count a sequence that began."""
        times = result.timing.token_times
        with self._lock:
            arrived = self._arrived.pop(sequence, None)
            if arrived is None:
                return
            self._count(sequence, result.finish_reason)
            if times:
                self._counts.first_token.add(times[0] - arrived)
            for gap in result.timing.itl:
                self._counts.inter_token.add(gap)

    def fail(self) -> None:
        """Count all that began and will have no result, as their run has failed."""
        with self._lock:
            for sequence in self._arrived:
                self._count(sequence, "cancelled" if sequence.cancelled else "error")
            self._arrived.clear()

    def read(self) -> Counts:
        """The counts as they are now, with the tokens of what still runs."""
        with self._lock:
            counts = copy.deepcopy(self._counts)
            counts.generated_tokens += sum(len(sequence.token_ids) for sequence in self._arrived)
        return counts

    def _count(self, sequence: Sequence, reason: FinishReason) -> None:
        counts = self._counts
        counts.finished[reason] += 1
        if sequence.token_ids:
            counts.prompt_tokens += len(sequence.prompt_ids)
            counts.cached_tokens += sequence.cached_tokens
            counts.prefix_hits += sequence.cached_tokens > 0
            counts.generated_tokens += len(sequence.token_ids)
