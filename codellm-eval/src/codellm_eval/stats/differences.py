"""Two models on the same texts and tasks: how far they are apart, and whether that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import attrs

from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.paired import LEAST_PASSED, LEVEL, Interval, bootstrap, mcnemar


@attrs.frozen(kw_only=True)
class Difference:
    """Bits per byte of one model minus those of another, over the `units` (documents, tasks) that both have.

    `interval` is None where the units are too few for one.
    """

    value: float
    units: int
    interval: Interval | None

    @property
    def told_apart(self) -> bool:
        """Whether it is more than noise: the interval leaves 0 out."""
        return self.interval is not None and not self.interval.holds_zero


def difference(mine: Iterable[Scored], theirs: Iterable[Scored]) -> Difference | None:
    """The difference of what has one name and size in both; None where nothing has."""
    known = {text.name: text for text in theirs}
    pairs = [(text, known[text.name]) for text in mine if text.name in known]
    pairs = [(one, other) for one, other in pairs if one.bytes == other.bytes]
    if not pairs:
        return None
    bits = [(one.nll - other.nll) / math.log(2) for one, other in pairs]
    sizes = [float(one.bytes) for one, _ in pairs]
    return Difference(value=math.fsum(bits) / sum(sizes), units=len(pairs), interval=bootstrap(bits, sizes))


@attrs.frozen(kw_only=True)
class Solved:
    """Tasks that only one of two models solves: `gained` by the first, `lost` to the second.

    `probability` is McNemar's of a split as uneven; None where neither solves LEAST_PASSED, so that none was asked for.
    """

    gained: int
    lost: int
    probability: float | None

    @property
    def told_apart(self) -> bool:
        """Whether it is more than noise."""
        return self.probability is not None and self.probability < 1 - LEVEL


def solved(mine: Mapping[str, bool], theirs: Mapping[str, bool]) -> Solved | None:
    """The tasks of both, by whether they were solved; None where there is none."""
    both = mine.keys() & theirs.keys()
    if not both:
        return None
    gained = sum(mine[task] and not theirs[task] for task in both)
    lost = sum(theirs[task] and not mine[task] for task in both)
    most = max(sum(verdicts[task] for task in both) for verdicts in (mine, theirs))
    return Solved(gained=gained, lost=lost, probability=mcnemar(lost, gained) if most >= LEAST_PASSED else None)
