"""The slots of a `run`: whoever has finished leaves, and whoever waits takes the slot."""

from __future__ import annotations

import time
from collections.abc import Iterable

from codellm.sequence import Sequence


class Slot:
    """Where a running sequence lives, and how far it is; a backend adds what its memory holds there."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.sequence: Sequence | None = None
        self.done = 0
        """Tokens computed: of the prompt first, then of the output."""
        self.next: int | None = None
        """The sampled token to compute next; None while there is none."""

    @property
    def free(self) -> bool:
        """Whether a sequence can take it."""
        return self.sequence is None

    def piece(self, length: int, chunk: int) -> int:
        """Where the next piece of a prompt of `length` tokens stops: at a multiple of `chunk`, or at its end.

        So a prompt is cut at the same positions whatever was computed of it before, and its numbers are the same. But
        what is left in a chunk's length is not cut: the weights are read once for it.
        """
        whole = length - self.done <= chunk
        return length if whole else self.done - self.done % chunk + chunk


class Slots:
    """The `count` slots of a `run`, filled from the iterable that it was given."""

    def __init__(self, sequences: Iterable[Sequence | None], count: int) -> None:
        self._waiting = Waiting(sequences)
        self._count = count
        self._running: list[Sequence] = []

    def refill(self) -> list[Sequence]:
        """The sequences of the next step, in the order they came; none once all are done.

        Drops those that have finished or failed, then pulls new ones while there is a free slot. Blocks where the
        iterable is live and nothing runs.
        """
        self._running = [one for one in self._running if not ended(one)]
        self._running += self._waiting.take(self._count - len(self._running), busy=bool(self._running))
        return list(self._running)


class Waiting:
    """The sequences of a `run` that have no slot yet: of a live iterable, those that come later too."""

    def __init__(self, sequences: Iterable[Sequence | None]) -> None:
        self._sequences = iter(sequences)
        self._more = True

    def take(self, most: int, *, busy: bool) -> list[Sequence]:
        """The next `most` sequences, or fewer: all that there are now. Where nothing is `busy`, it waits for one."""
        taken: list[Sequence] = []
        while self._more and len(taken) < most:
            try:
                sequence = next(self._sequences)
            except StopIteration:
                self._more = False
                break
            if sequence is not None and not sequence.finished:
                taken.append(sequence)
            elif sequence is None and (busy or taken):
                break
            elif sequence is None:
                time.sleep(0.001)  # a live iterable should block here; do not burn a core where it does not
        return taken


def ended(sequence: Sequence) -> bool:
    """Whether `sequence` needs no slot any more: it has finished, or failed."""
    return sequence.finished or sequence.error is not None
