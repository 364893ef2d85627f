"""pass@k: the chance that one of k samples solves a problem, and how far another set of problems might move it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from codellm.errors import InvalidValueError

RESAMPLES = 10_000
CONFIDENCE = 0.95
_BLOCK = 1000
_SEED = 0


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The unbiased estimate from `samples` drawn, of which `passed` solve the problem.

    1 - C(n - c, k) / C(n, k), as the product of (1 - k / i) over n - c < i <= n, which overflows nowhere. Chen et al.
    2021, equation 1.

    Raises:
        InvalidValueError: not 0 <= passed <= samples, or not 1 <= k <= samples.
    """
    if not 0 <= passed <= samples:
        raise InvalidValueError(f"{passed} of {samples} samples cannot have passed")
    if not 1 <= k <= samples:
        raise InvalidValueError(f"pass@{k} needs at least {max(k, 1)} samples of each problem, not {samples}")
    if samples - passed < k:
        return 1.0  # fewer failures than draws: every draw of k holds one that passed
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - passed + 1, samples + 1))


def mean_pass_at_k(counts: Iterable[tuple[int, int]], k: int) -> float:
    """The mean of `pass_at_k` over problems, given as (samples, passed); NaN without problems."""
    estimates = [pass_at_k(samples, passed, k) for samples, passed in counts]
    return math.fsum(estimates) / len(estimates) if estimates else math.nan


def bootstrap_interval(
    counts: Sequence[tuple[int, int]], k: int, groups: Sequence[str] | None = None
) -> tuple[float, float] | None:
    """The interval that holds the mean over problems like these with 95 % confidence.

    The percentile bootstrap over problems (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13):
    as many problems as there are, drawn with replacement, 10000 times with a fixed seed; the 2.5th and the 97.5th
    percentile of their means. Problems of one group, those made from the same text, say, are drawn together. None where
    all problems have the same estimate, or are one group: their spread is all that the method knows of.
    """
    import numpy as np

    estimates = np.array([pass_at_k(samples, passed, k) for samples, passed in counts])
    if len(np.unique(estimates)) < 2:
        return None
    names, members = np.unique(range(len(estimates)) if groups is None else groups, return_inverse=True)
    if len(names) < 2:
        return None
    sums, sizes = np.bincount(members, estimates), np.bincount(members)
    rng, means = np.random.default_rng(_SEED), []
    for _ in range(RESAMPLES // _BLOCK):  # in blocks: all draws of many problems at once would fill the memory
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_BLOCK)
        means.append((drawn @ sums) / (drawn @ sizes))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def reported_ks(samples: int, ks: Sequence[int] = (1, 10, 100)) -> tuple[int, ...]:
    """Values of `ks` that `samples` of each problem allow."""
    return tuple(k for k in ks if k <= samples)
