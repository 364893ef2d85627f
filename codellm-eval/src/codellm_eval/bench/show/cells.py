"""One record as the flat row of a table: rounded and with spreads for people, complete and in SI units for programs."""

from __future__ import annotations

import re
from typing import Any

from codellm_eval.bench.records import figures
from codellm_eval.bench.records.checks import doubts
from codellm_eval.bench.records.figure import Figure, Kind
from codellm_eval.bench.records.record import FAILED, Record
from codellm_eval.stats.differences import Difference, Solved
from codellm_eval.stats.repeats import Repeats

KINDS: tuple[Kind, ...] = ("model", "speed", "memory", "quality", "energy", "growth", "row")
"""The order in which programs are told figures."""
DOUBT = "!"
"""Before a figure that the row's own measurements speak against."""
NOISE = "≈"
"""Before a figure that is not told apart from the reference row's."""
MEASURED_ONCE = "once"
"""Where a spread would stand."""


def significant(value: float) -> str:
    """A positive figure with three digits, or all of those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def plus_minus(repeats: Repeats) -> str:
    """The spread: ± a share of the median in percent; a single measurement tells none."""
    if len(repeats.values) == 1:
        return MEASURED_ONCE
    share = 100 * repeats.spread
    return f"±{share:.0f}%" if share >= 1 else f"±{share:.1f}%"


def marked(figure: str, difference: Difference | Solved | None) -> str:
    """A figure that could as well be the reference row's has a NOISE before it."""
    return figure if difference is None or difference.told_apart else NOISE + figure


def show_difference(difference: Difference | Solved | None) -> str:
    """Range of the difference from the reference row, or the tasks that make it up."""
    if isinstance(difference, Solved):
        return f"+{difference.gained} -{difference.lost}"
    if difference is None or difference.interval is None:
        return ""
    ends = difference.interval.low, difference.interval.high
    digits = 3 if max(map(abs, ends)) >= 0.01 else 4
    # without the zero before the point, for which 80 columns have no room
    return "…".join(re.sub(r"^([+-])0\.", r"\1.", f"{end:+.{digits}f}") for end in ends)


def for_people(record: Record) -> dict[str, tuple[str, str]]:
    """Texts of each figure that a table has a column of, and its spread (empty where it has none)."""
    columns = [*(figure for figure in figures.FIGURES if figure.table is not None), *figures.of_workloads(record)]
    shown = {figure.key: _cell(figure, record) for figure in columns}
    for column in {column for doubt in doubts(record) for column in doubt.columns}:
        text, spread = shown[column]
        shown[column] = DOUBT + text, spread
    return {**shown, figures.PREFILL.key: (FAILED, "")} if record.error is not None else shown


def _cell(figure: Figure, record: Record) -> tuple[str, str]:
    value = figure.shown(record)
    if isinstance(value, Repeats):
        each = f"\n{significant(value.median / figure.sequences)} each" if figure.sequences > 1 else ""
        return significant(figure.unit.of(value.median)), plus_minus(value) + each
    if not isinstance(value, int | float):
        gap = figure.gap(record)
        return (gap.cell if gap else "-"), ""
    number = figure.unit.of(value)
    text = f"{number:{figure.digits}}" if figure.digits else significant(number)
    if figure.out_of is not None:
        text += f"/{figure.out_of(record)}"
    difference = figure.difference(record.against) if figure.difference and record.against else None
    return marked(text, difference), show_difference(difference) if figure.differing else ""


def for_programs(record: Record) -> dict[str, Any]:
    """Every figure under a key that says its unit; None where there is none, and why under `…_reason`."""
    info = record.info
    values: dict[str, Any] = {
        "row": str(record.row),
        "backend": record.row.backend,
        "scheme": info.scheme if info else record.row.scheme,
        "options": ",".join(f"{key}={value}" for key, value in record.row.options.items()),
        "model": record.model,
        "dummy": info.dummy if info else None,
        "error": record.error,
        "warnings": "; ".join(doubt.text for doubt in doubts(record)) or None,
        "architecture": info.architecture if info else None,
        "parameters": info.parameters if info else None,
        "dtype": info.dtype if info else None,
        "device": info.device if info else None,
        "threads": info.threads if info else None,
        "context_length": info.context_length if info else None,
    }
    kinds = sorted(figures.FIGURES, key=lambda figure: KINDS.index(figure.kind))
    for figure in [*kinds, *figures.of_workloads(record)]:
        values |= _told(figure, record)
    return values


def _told(figure: Figure, record: Record) -> dict[str, Any]:
    """Values of one figure for programs: itself, its spread, and why there is none."""
    told: dict[str, Any] = {}
    if (key := figure.programs) is not None:
        value = figure.value(record)
        told[key] = value.median if isinstance(value, Repeats) else value
        if figure.repeated:
            told[f"{key}_spread"] = value.spread if isinstance(value, Repeats) else None
    if figure.missing is not None:
        gap = figure.gap(record)
        told[figure.reason or f"{figure.field}_reason"] = gap.note if gap else None
    return told
