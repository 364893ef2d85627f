"""pass@k: the chance that one of k samples solves a problem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from codellm.errors import InvalidValueError


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


def reported_ks(samples: int, ks: Sequence[int] = (1, 10, 100)) -> tuple[int, ...]:
    """Those of `ks` that `samples` of each problem allow."""
    return tuple(k for k in ks if k <= samples)
