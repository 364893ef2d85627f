"""What is known of one cell: its figures, or why it has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from codellm.model import ModelInfo
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.record import make_converter
from codellm_eval.grid.plan import Size
from codellm_eval.stats.repeats import Repeats

if TYPE_CHECKING:
    import cattrs


@attrs.frozen(kw_only=True)
class Cell:
    """One row at one size. A figure is None where the protocol has none, or the cell did not work."""

    row: Row
    size: Size
    info: ModelInfo | None = None
    prefill: Repeats | None = None
    """Seconds until every sequence has its first token."""
    decode: Repeats | None = None
    """Seconds of a step, which gives each sequence a token."""
    token: Repeats | None = None
    """Seconds of a token of each sequence by a pass over everything before it: the protocol `seed`."""
    host_peak: int | None = None
    """Bytes of the process that loaded and ran the model."""
    device_peak: int | None = None
    """Bytes; 0 where there is no device memory."""
    out_of_memory: str | None = None
    """What the error said, where the memory did not suffice."""
    error: str | None = None
    """Why there is no figure for another reason."""
    seconds: float | None = None
    """Wall time of the whole cell, the load included."""

    @property
    def key(self) -> tuple[Row, Size]:
        """Row and size, by which the grid has it."""
        return self.row, self.size

    @property
    def peak(self) -> int | None:
        """Bytes at the peak, of the memory that holds the weights: the device's where there is one, else the host's."""
        return self.device_peak or self.host_peak


def converter() -> cattrs.Converter:
    """Converter between cells and JSON. Repeats are told with what tables show of them."""
    made = make_converter()
    made.register_unstructure_hook(Repeats, _repeats)
    made.register_structure_hook(Repeats, lambda value, _: Repeats(tuple(float(each) for each in value["values"])))
    return made


def _repeats(repeats: Repeats) -> dict[str, Any]:
    values = list(repeats.values)
    return {"median": repeats.median, "least": min(values), "greatest": max(values), "values": values}


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
