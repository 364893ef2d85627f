"""A row beside the reference row of its benchmark."""

from __future__ import annotations

import attrs

from codellm_eval.bench.ask.row import Row
from codellm_eval.stats.differences import Difference, Solved


@attrs.frozen(kw_only=True)
class Against:
    """How far a row is from `reference`; None where one of the two has no such figure."""

    reference: Row
    bits: Difference | None
    canonical: Difference | None
    solved: Solved | None

    @property
    def says_something(self) -> bool:
        """Whether the two rows have any figure in common."""
        return any((self.bits, self.canonical, self.solved))
