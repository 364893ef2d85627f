"""What is worth choosing: the points that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen
class Cost:
    """A point of a trade-off, both coordinates such that less is better."""

    x: float
    y: float

    def beats(self, other: Cost) -> bool:
        """Whether this is nowhere worse and somewhere better."""
        return self.x <= other.x and self.y <= other.y and self != other


def pareto_front(costs: Sequence[Cost]) -> list[int]:
    """Indexes of the `costs` that no other cost beats, by x; equal ones are all there."""
    kept = [index for index, cost in enumerate(costs) if not any(other.beats(cost) for other in costs)]
    return sorted(kept, key=lambda index: (costs[index].x, index))
