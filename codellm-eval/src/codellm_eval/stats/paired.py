"""Whether two models differ, by what each made of the same texts or tasks.

Everything here is paired: texts differ far more from each other than two schemes of one model do, and only the
difference on each single text leaves that out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import attrs

LEVEL = 0.95
RESAMPLES = 10_000
LEAST_UNITS = 5
"""Texts or tasks below which no interval is told: resampling four of them has 35 outcomes."""
LEAST_PASSED = 10
"""Tasks that one of two rows must solve before their pass@1 is compared: below, no test could find a difference."""


@attrs.frozen
class Interval:
    """Where a difference lies, by LEVEL."""

    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether there may be no difference at all."""
        return self.low <= 0 <= self.high


def bootstrap(differences: Sequence[float], weights: Sequence[float], seed: int = 0) -> Interval | None:
    """The interval of sum(differences) / sum(weights), over units that could have been others; None for few of them.

    Units are drawn with replacement RESAMPLES times, from a generator seeded with `seed`. The interval is the expanded
    percentile one (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"): a plain percentile interval is
    too narrow for few units, so its tails are those that make it as wide as Student's for a mean.
    """
    import numpy as np

    count = len(differences)
    if count < LEAST_UNITS:
        return None
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=RESAMPLES)  # [R, N]
    found = (drawn @ np.asarray(differences, float)) / (drawn @ np.asarray(weights, float))
    reach = math.sqrt(count / (count - 1)) * student_quantile(0.5 + LEVEL / 2, count - 1)
    tail = statistics.NormalDist().cdf(-reach)
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high))


def student_quantile(probability: float, freedom: int) -> float:
    """The t that Student's distribution of `freedom` degrees stays below with `probability`, from 0.5 to 1."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < probability:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < probability else (low, middle)
    return high


def _student_cdf(t: float, freedom: int) -> float:
    """Distribution of Student's t: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4, for whole degrees and t >= 0."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 + odd, freedom - 1, 2):
        term *= cosine * (step - 1) / step
        total += term
    share = math.sin(angle) * total
    return 0.5 + (angle + share) / math.pi if odd else 0.5 + share / 2


def mcnemar(lost: int, gained: int) -> float:
    """The probability of a split of tasks this uneven or more where none is better: McNemar's exact test, two-sided.

    `lost` tasks only one of two rows solves, `gained` only the other; those that both solve, or neither, say nothing.
    """
    count = lost + gained
    tail = sum(math.comb(count, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / (1 << count))
