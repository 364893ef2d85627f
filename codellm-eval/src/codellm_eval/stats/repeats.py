"""Repeats: several measurements of one thing, as a median and a spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Self

import attrs

from codellm.errors import BackendError


@attrs.frozen
class Repeats:
    """The values of all repeats, in the order measured, in one unit.

    The median is told rather than the mean since one repeat disturbed by another process must not move the figure;
    the spread is told as the greatest distance from the median, so that no repeat is hidden.
    """

    values: tuple[float, ...] = attrs.field(validator=attrs.validators.min_len(1))

    @property
    def median(self) -> float:
        """The middle value; of an even count the mean of the two in the middle."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Spread: greatest |value - median| / median: every repeat lies within ± this share of the median.

        Infinite where the median is 0 and a repeat is not: several tokens of a step come at once.
        """
        middle = self.median
        reach = max(abs(value - middle) for value in self.values)
        return reach / middle if middle else math.inf if reach else 0.0

    def map(self, function: Callable[[float], float]) -> Self:
        """The same repeats in another unit."""
        return type(self)(tuple(function(value) for value in self.values))

    @classmethod
    def of_times(cls, what: str, seconds: list[float | None]) -> Self:
        """Repeats of a time.

        Raises:
            BackendError: a repeat took no time, so that no rate can be told from it.
        """
        times: list[float] = []
        for value in seconds:
            if value is None or not math.isfinite(value) or value <= 0:
                raise BackendError(f"{what} took {value} s by the clock, from which no rate can be told")
            times.append(value)
        return cls(tuple(times))
