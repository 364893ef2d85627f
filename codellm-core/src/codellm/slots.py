"""The sequences that run together: whoever has finished leaves, and whoever waits takes the slot."""

from __future__ import annotations

import time
from collections.abc import Iterable

from codellm.sequence import Sequence


class Slots:
    """The `count` slots of a `run`, filled from the iterable that it was given."""

    def __init__(self, sequences: Iterable[Sequence | None], count: int) -> None:
        self._waiting = iter(sequences)
        self._count = count
        self._running: list[Sequence] = []
        self._more = True

    def refill(self) -> list[Sequence]:
        """The sequences of the next step, in the order they came; none once all are done.

        Drops those that have finished or failed, then pulls new ones while there is a free slot. Blocks where the
        iterable is live and nothing runs.
        """
        self._running = [one for one in self._running if not one.finished and one.error is None]
        while self._more and len(self._running) < self._count:
            try:
                sequence = next(self._waiting)
            except StopIteration:
                self._more = False
                break
            if sequence is not None and not sequence.finished:
                self._running.append(sequence)
            elif sequence is None and self._running:
                break
            elif sequence is None:
                time.sleep(0.001)  # a live iterable should block here; do not burn a core where it does not
        return list(self._running)
