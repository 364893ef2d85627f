"""Backends that break how a model is held, closed and counted."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import attrs

from codellm.model import Memory
from support.broken.fault import fails
from support.sound_backend import SoundModel


@fails("beside a run gave", "test_a_second_use_is_refused")
@fails("of a closed model gave", "test_a_closed_model_says_so[run]")
class RunsTwice(SoundModel):
    """Does not hold the model while it runs."""

    def run(self, sequences):
        yield from self.steps(sequences)


@fails("frees it however the run ends", "test_a_stream_left_frees_the_model")
@fails("frees it however the run ends", "test_an_iterable_that_raises_frees_the_model")
class KeepsTheModel(SoundModel):
    """Frees the model at the end of a run, and only there."""

    claims: ClassVar = []

    def run(self, sequences):
        self.claims.append(self.claim())
        self.claims[-1].__enter__()
        yield from self.steps(sequences)
        self.claims[-1].__exit__(None, None, None)


@fails("came out of run() as no error", "test_an_iterable_that_raises_frees_the_model")
class SwallowsErrors(SoundModel):
    """Ends its run quietly at any error."""

    def steps(self, sequences):
        try:
            yield from super().steps(sequences)
        except Exception:
            return


@fails("the second close() raised RuntimeError", "test_close_may_be_called_twice")
class ClosesOnce(SoundModel):
    """Raises when it is closed again."""

    def close(self):
        if self._closed:
            raise RuntimeError("already closed")
        super().close()


@fails("of a closed model gave", "test_a_closed_model_says_so")
class StaysOpen(SoundModel):
    """Frees its table and does not say that it is closed."""

    def close(self):
        self.table = None


@fails("exceed their peak", "test_memory_is_counted")
class HasNoPeak(SoundModel):
    """Counts no peak."""

    def memory(self):
        return Memory(host=self.table.nbytes, host_peak=0)


@fails("left", "test_memory_returns_after_close")
class Leaks(SoundModel):
    """Keeps what it closes."""

    kept: ClassVar = []

    def close(self):
        self.kept.append(self.table)
        super().close()


@fails("bytes of device memory were in use at the first load", "test_memory_returns_after_close")
class LeaksOnTheDevice(SoundModel):
    """Takes device memory for each load."""

    loads: ClassVar = Counter()

    def __init__(self, backend, spec):
        super().__init__(backend, spec)
        self.loads[backend] += 1

    def memory(self):
        taken = self.loads[self.info.backend] * self.table.nbytes
        return attrs.evolve(super().memory(), device=taken, device_peak=taken)
