"""Speed and memory of each row beside the reference row's, and whether the difference may be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import MEASURED_ONCE, NOISE
from codellm_eval.bench.show.pairs import Pair
from codellm_eval.bench.show.quantity import Quantity, quantities


@attrs.frozen(kw_only=True)
class Ratios:
    """Ratios to the reference row.

    `columns` are names of figures; a row has a ratio and a remark for each, both empty where it lacks the figure.
    """

    reference: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[tuple[str, str]]]


def ratios(records: Sequence[Record]) -> Ratios | None:
    """Divide each further row's figures by those of the first; None where there are not two that worked.

    Figures of quality are left out: their differences are paired by document or task elsewhere.
    """
    reference, *others = records
    base = _costs(reference)
    if reference.error is not None or not base:
        return None
    rows = {str(other.row): _row(other, base) for other in others if other.error is None}
    return Ratios(reference=str(reference.row), columns=list(base), rows=rows) if rows else None


def _costs(record: Record) -> dict[str, Quantity]:
    """The figures of time and memory that every benchmark has: the further ones would be too many columns."""
    return {name: each for name, each in quantities(record).items() if each.in_report}


def _row(record: Record, base: Mapping[str, Quantity]) -> list[tuple[str, str]]:
    own = _costs(record)
    return [_cell(Pair(record.row, base[name], own[name])) if name in own else ("", "") for name in base]


def _cell(pair: Pair) -> tuple[str, str]:
    if pair.ratio is None:
        return "", ""
    mark = NOISE if pair.noise else ""
    return f"{mark}{pair.ratio:.2f}", MEASURED_ONCE if pair.noise is None else ""
