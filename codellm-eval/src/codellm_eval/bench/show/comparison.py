"""`codellm bench compare`: two results folders as one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codellm.cli.output import for_people, note
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.show.cells import plus_minus, significant
from codellm_eval.bench.show.pairs import Pair, differences, pairs
from codellm_eval.bench.show.quantity import Quantity
from codellm_eval.bench.show.table import listed, wrapped
from codellm_eval.files import tables

PEOPLE = (
    tables.Column("row", "row"),
    tables.Column("figure", "figure"),
    tables.Column("a", "A", align="right"),
    tables.Column("b", "B", align="right"),
    tables.Column("ratio", "B/A", align="right"),
    tables.Column("noise", ""),
)
PROGRAMS = tuple(
    tables.Column(key, key) for key in ("row", "figure", "unit", "a", "a_spread", "b", "b_spread", "ratio", "noise")
)


def compare(a: Path, b: Path, format: str, width: int = tables.WIDTH) -> str:
    """The table of the folders `a` and `b`, and for people the notes below it; programs get the notes on stderr.

    Raises:
        ResultsError: a folder holds no results, or they share no row.
    """
    ours, theirs = Folder.read(a), Folder.read(b)
    found = pairs(ours, theirs)
    remarks = [*_remarks(ours, theirs), *differences(ours, theirs)]
    if not for_people(format):
        for remark in remarks:
            note(remark)
        return tables.render(PROGRAMS, map(_for_programs, found), format)
    table = tables.render(PEOPLE, _for_people(found), format, width)
    return table + "\n" + "".join(listed(remark) if format == "md" else wrapped(remark, width) for remark in remarks)


def _remarks(a: Folder, b: Folder) -> Iterator[str]:
    for name, folder in (("A", a), ("B", b)):
        made = f", {date}" if (date := folder.manifest.get("date")) else ""
        yield f"{name}: {folder.path}{made}; {folder.plan.protocol}"
    yield (
        "noise: the difference lies within the spreads of both (± the greatest distance of a repeat from the median), "
        "or for texts and tasks is not told by a paired test at 5 %; ?: measured once, or on too few texts."
    )


def _for_people(found: list[Pair]) -> Iterator[dict[str, str]]:
    last = None
    for pair in found:
        ratio = pair.ratio
        yield {
            "row": str(pair.row) if pair.row != last else "",
            "figure": " ".join(filter(None, (pair.a.name, pair.a.unit.shown))),
            "a": _shown(pair.a),
            "b": _shown(pair.b),
            "ratio": "-" if ratio is None else f"{ratio:.3f}",
            "noise": {True: "noise", False: "", None: "?"}[pair.noise],
        }
        last = pair.row


def _shown(quantity: Quantity) -> str:
    value = quantity.unit.of(quantity.value)
    figure = f"{value:.3f}" if quantity.unit.name == "bits/byte" else significant(value)
    return f"{figure} {plus_minus(quantity.repeats)}" if len(quantity.repeats.values) > 1 else figure


def _for_programs(pair: Pair) -> dict[str, Any]:
    return {
        "row": str(pair.row),
        "figure": pair.a.name,
        "unit": pair.a.unit.name,
        "a": pair.a.value,
        "a_spread": pair.a.reach,
        "b": pair.b.value,
        "b_spread": pair.b.reach,
        "ratio": pair.ratio,
        "noise": pair.noise,
    }
