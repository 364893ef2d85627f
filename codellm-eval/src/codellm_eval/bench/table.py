"""All rows as one table: readable in 80 columns of a terminal, complete for programs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from codellm_eval import tables
from codellm_eval.bench.figures import for_people, for_programs
from codellm_eval.bench.plan import Plan
from codellm_eval.bench.record import Record

WIDTH = 80
REASON_WIDTH = 11
"""Characters of a line of a cell that holds a reason: what 80 columns leave beside the figures."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def render(records: Sequence[Record], plan: Plan, notes: Sequence[str], format: str, width: int = WIDTH) -> str:
    """The table, and for people (`table`, `md`) the notes below it.

    Raises:
        UnknownNameError: no such format.
    """
    if format == "table":
        return terminal(records, plan, width) + "\n" + "".join(_wrap(note, width) for note in notes)
    if format == "md":
        return markdown(records, plan) + "\n" + "".join(f"- {_CONTROL.sub(' ', note)}\n" for note in notes)
    rows = [for_programs(record) for record in records]
    columns = [tables.Column(key, key) for key in rows[0]] if rows else []
    return tables.render(columns, rows, format)


def titles(plan: Plan) -> dict[str, tuple[str, str]]:
    """What each figure is called, and its unit."""
    return {
        "weights": ("size", "MB"),
        "pp": (f"pp{plan.prompt_tokens}", "tok/s"),
        "tg": (f"tg{plan.new_tokens}", "tok/s"),
        "ttft": ("TTFT", "ms"),
        "tpot": ("TPOT", "ms"),
        "limit": ("limit", "%"),
        "peak": ("peak", "MB"),
        "bits": ("bits/", "byte"),
        "pass": ("pass@1", "%"),
    }


def terminal(records: Sequence[Record], plan: Plan, width: int = WIDTH) -> str:
    """Two lines a row: the figures, and under them the spreads.

    The row's name stands on one line where the table fits `width` so, else it is broken after the backend's name.
    """
    whole = _terminal(records, plan, split=False)
    return whole if max(map(len, whole.splitlines())) <= width else _terminal(records, plan, split=True)


def _terminal(records: Sequence[Record], plan: Plan, *, split: bool) -> str:
    import tabulate

    head = titles(plan)
    body = []
    for record in records:
        name = str(record.row).replace(":", ":\n", 1) if split else str(record.row)
        cells = for_people(record)
        body.append([name, *(_lines(*cells[key]) for key in head)])
    # as a row of the body: tabulate pads the titles of a header, which 80 columns have no room for
    table = tabulate.tabulate(
        [["row", *("\n".join(title) for title in head.values())], *body],
        tablefmt="plain",
        colalign=["left", *["right"] * len(head)],
        disable_numparse=True,
    )
    lines = [line.rstrip() for line in table.splitlines()]
    return "\n".join([*lines[:2], "-" * max(map(len, lines)), *lines[2:]]) + "\n"


def _lines(figure: str, spread: str) -> str:
    """A figure over its spread; a reason of several words over as many lines as it takes."""
    if spread:
        return f"{figure}\n{spread}"
    return "\n".join(textwrap.wrap(_CONTROL.sub(" ", figure), REASON_WIDTH, break_long_words=False))


def markdown(records: Sequence[Record], plan: Plan) -> str:
    """One line a row, the spread beside each figure."""
    columns = [tables.Column("row", "row")]
    columns += [
        tables.Column(key, f"{name} {unit}" if not name.endswith("/") else name + unit, align="right")
        for key, (name, unit) in titles(plan).items()
    ]
    rows = [
        {
            "row": str(record.row),
            **{key: " ".join(filter(None, pair)) for key, pair in for_people(record).items()},
        }
        for record in records
    ]
    return tables.render(columns, rows, "md")


def _wrap(note: str, width: int) -> str:
    lines = textwrap.wrap(_CONTROL.sub(" ", note), width, subsequent_indent="  ", break_long_words=False)
    return "\n".join(lines) + "\n"
