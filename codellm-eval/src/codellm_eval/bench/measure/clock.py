"""The clock that times are told of: a time of a few of its steps is a rounding, not a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from codellm.errors import BackendError

ERROR = 0.01
"""The share of a time that one step of the clock may be."""
PATIENCE = 0.2
"""Seconds to wait for steps."""


def resolution(told: Callable[[], float] | None = None) -> float:
    """Seconds of the smallest step of a clock, as it is seen; PATIENCE where none came in that time.

    By default it is the one that all times here are `told` by, `time.perf_counter`.
    """
    told = told or time.perf_counter
    steps: list[float] = []
    # another clock, so that one which stands still ends too
    end = time.monotonic() + PATIENCE
    last = told()
    while len(steps) < 1000 and time.monotonic() < end:
        now = told()
        if now > last:
            steps.append(now - last)
            last = now
    return min(steps, default=PATIENCE)


def check(step: float, seconds: Iterable[float]) -> None:
    """See that each of `seconds` was long enough to be measured with a clock of this `step`.

    Raises:
        BackendError: it was not; says how short, and what makes it longer.
    """
    shortest = min(seconds)
    if step > ERROR * shortest:
        raise BackendError(
            f"the shortest request took {1e3 * shortest:.3g} ms by a clock that moves in steps of {1e3 * step:.3g} ms, "
            f"and a figure may be off by {100 * ERROR:.0f} % at most; raise --prompt-tokens and --new-tokens"
        )
