"""What the process of a row is told to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import attrs

from codellm_eval.bench.ask.row import Row, refuse_cache
from codellm_eval.grid.cell import Cell
from codellm_eval.grid.plan import GridPlan, Size

if TYPE_CHECKING:
    from codellm.spec import LoadSpec

Stage = Literal["prepare", "measure"]


@attrs.frozen(kw_only=True)
class GridJob:
    """Everything that a row's process of cells needs; it goes to it as JSON."""

    row: Row
    model: str
    plan: GridPlan
    sizes: tuple[Size, ...]
    """The cells that are still to be measured, in this order."""
    stage: Stage = "measure"
    threads: int | None = None
    device: str | None = None
    options: Mapping[str, str] = attrs.field(factory=dict)

    def spec(self, size: Size) -> LoadSpec:
        """What to load for a cell: as many slots as it needs, each just long enough.

        Raises:
            InvalidValueError: a field is out of its range, or prompts would not be computed whole.
        """
        spec = self.row.spec(
            self.model,
            threads=self.threads,
            device=self.device,
            options=self.options,
            batch_size=size.batch_size,
            context_length=self.plan.context_length(size),
        )
        refuse_cache(spec, self.row)
        return spec

    def failed(self, size: Size, reason: str) -> Cell:
        """The cell of `size` without a figure."""
        return Cell(row=self.row, size=size, error=reason)
