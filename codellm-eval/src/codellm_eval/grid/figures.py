"""The figures of a cell, and how much faster than the reference row each is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import attrs

from codellm_eval.grid.cell import Cell
from codellm_eval.grid.plan import Protocol
from codellm_eval.stats.repeats import Repeats

GIBI = 2.0**30


@attrs.frozen(kw_only=True)
class Figure:
    """A figure that has a table and a picture of its own."""

    key: str
    title: str
    unit: str
    factor: float
    """From the record's unit to `unit`."""
    of: Callable[[Cell], Repeats | None]
    """In the record's unit; None where the cell has none."""
    compared: bool = False
    """Whether it is a time, of which rows are compared."""

    def shown(self, cell: Cell) -> Repeats | None:
        """Value of a cell in `unit`."""
        repeats = self.of(cell)
        return repeats and repeats.map(lambda value: self.factor * value)


def _rate(cell: Cell) -> Repeats | None:
    """Tokens per second of all sequences together."""
    return cell.decode and cell.decode.map(lambda seconds: cell.size.batch_size / seconds)


def _peak(cell: Cell) -> Repeats | None:
    return Repeats((float(cell.peak),)) if cell.peak else None


PREFILL = Figure(key="prefill", title="prefill", unit="ms", factor=1e3, of=lambda cell: cell.prefill, compared=True)
DECODE = Figure(
    key="decode", title="decode, time per token", unit="ms", factor=1e3, of=lambda cell: cell.decode, compared=True
)
RATE = Figure(key="rate", title="decode, all sequences together", unit="tokens/s", factor=1, of=_rate)
TOKEN = Figure(
    key="token", title="a token by a whole pass", unit="ms", factor=1e3, of=lambda cell: cell.token, compared=True
)
PEAK = Figure(key="peak", title="peak memory", unit="GiB", factor=1 / GIBI, of=_peak)
FIGURES: dict[Protocol, tuple[Figure, ...]] = {"cached": (PREFILL, DECODE, RATE, PEAK), "seed": (TOKEN, PEAK)}


@attrs.frozen(kw_only=True)
class SpeedUp:
    """The reference's time over a row's; `low` and `high` are those of the repeats that are furthest apart."""

    value: float
    low: float
    high: float
    noise: bool | None
    """Whether the two rows' repeats overlap, so that there may be none; None where one was measured once."""

    @classmethod
    def of(cls, figure: Figure, reference: Cell | None, cell: Cell) -> Self | None:
        """Speed-up by a time; None where one of the two cells has none."""
        base, own = reference and figure.of(reference), figure.of(cell)
        if not base or not own:
            return None
        ours, theirs = own.values, base.values
        overlap = min(ours) <= max(theirs) and min(theirs) <= max(ours)
        return cls(
            value=base.median / own.median,
            low=min(theirs) / max(ours),
            high=max(theirs) / min(ours),
            noise=overlap if min(len(ours), len(theirs)) > 1 else None,
        )


def for_programs(cell: Cell, reference: Cell | None, protocol: Protocol) -> dict[str, Any]:
    """Every figure of a cell under a key that says its unit; None where there is none."""
    info = cell.info
    values: dict[str, Any] = {
        "row": str(cell.row),
        "backend": cell.row.backend,
        "scheme": info.scheme if info else cell.row.scheme,
        "options": ",".join(f"{key}={value}" for key, value in cell.row.options.items()),
        "batch_size": cell.size.batch_size,
        "context": cell.size.context,
        "out_of_memory": cell.out_of_memory,
        "error": cell.error,
        "dummy": info.dummy if info else None,
        "dtype": info.dtype if info else None,
        "device": info.device if info else None,
    }
    for key, repeats in (
        ("prefill_seconds", cell.prefill),
        ("decode_seconds", cell.decode),
        ("decode_tokens_per_second", _rate(cell)),
        ("token_seconds", cell.token),
    ):
        values |= _spread(key, repeats)
    values |= {"device_peak_bytes": cell.device_peak, "host_peak_bytes": cell.host_peak}
    for figure in FIGURES[protocol]:
        if figure.compared:
            values |= _speed_up(figure, cell, reference)
    return {**values, "cell_seconds": cell.seconds}


def _spread(key: str, repeats: Repeats | None) -> dict[str, float | None]:
    if repeats is None:
        return dict.fromkeys((key, f"{key}_least", f"{key}_greatest"))
    return {key: repeats.median, f"{key}_least": min(repeats.values), f"{key}_greatest": max(repeats.values)}


def _speed_up(figure: Figure, cell: Cell, reference: Cell | None) -> dict[str, Any]:
    key, found = f"{figure.key}_speedup", SpeedUp.of(figure, reference, cell)
    if found is None:
        return dict.fromkeys((key, f"{key}_least", f"{key}_greatest", f"{key}_noise"))
    return {key: found.value, f"{key}_least": found.low, f"{key}_greatest": found.high, f"{key}_noise": found.noise}
