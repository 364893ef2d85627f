"""Rows to text: one table, five formats.

`table` and `md` are for people: numbers are rounded as the column says. `csv`, `json` and `jsonl` are for
programs: they hold the values as they were measured, under the column's key.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from codellm.cli.output import FORMATS
from codellm.errors import UnknownNameError

WIDTH = 80
NARROWEST = 8
"""Characters below which a wrapped column is harder to read than a wide table."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

Row = Mapping[str, Any]


def text(value: object) -> str:
    """Show any value as it prints."""
    return str(value)


def fixed(digits: int) -> Callable[[Any], str]:
    """A number with `digits` decimals."""
    return lambda value: f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A share of 1 as percent with one decimal."""
    return f"{100 * value:.1f}%"


def gib(value: float) -> str:
    """Bytes as GiB with two decimals."""
    return f"{value / 2**30:.2f}"


@attrs.frozen
class Column:
    """One column: the row's `key`, the `title` that people read, and how a number is shown to them.

    A string is shown as it is, whatever `show` says: a cell without a figure holds its reason.
    """

    key: str
    title: str
    show: Callable[[Any], str] = text
    align: Literal["left", "right"] = "left"


def number(key: str, title: str, digits: int = 2) -> Column:
    """A right-aligned column of numbers with `digits` decimals."""
    return Column(key, title, fixed(digits), "right")


def render(
    columns: Sequence[Column],
    rows: Iterable[Row | attrs.AttrsInstance],
    format: str = "table",
    width: int = WIDTH,
) -> str:
    """The table as text that ends in a newline; None is `-` for people, empty in csv, null in json and jsonl.

    `width` is how many characters a terminal table tries to keep to, by wrapping titles, then texts.

    Raises:
        UnknownNameError: `format` is none of FORMATS.
    """
    values = [_as_mapping(row) for row in rows]
    match format:
        case "table":
            return _terminal(columns, values, width)
        case "md":
            return _markdown(columns, _shown(columns, values, markdown=True))
        case "csv":
            return _csv(columns, values)
        case "json":
            return json.dumps([_plain(columns, row) for row in values], indent=2, ensure_ascii=False) + "\n"
        case "jsonl":
            return "".join(json.dumps(_plain(columns, row), ensure_ascii=False) + "\n" for row in values)
    raise UnknownNameError("table format", format, FORMATS)


def _as_mapping(row: Row | attrs.AttrsInstance) -> Row:
    return row if isinstance(row, Mapping) else attrs.asdict(row, recurse=False)


def _shown(columns: Sequence[Column], rows: Sequence[Row], *, markdown: bool = False) -> list[list[str]]:
    return [[_cell(column, row.get(column.key), markdown) for column in columns] for row in rows]


def _cell(column: Column, value: object, markdown: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    # A message may quote what a model wrote: its control characters must not reach a terminal.
    shown = _CONTROL.sub(" ", value if isinstance(value, str) else column.show(value))
    return shown.replace("\\", "\\\\").replace("|", "\\|") if markdown else shown


def _terminal(columns: Sequence[Column], rows: Sequence[Row], width: int) -> str:
    cells = _shown(columns, rows)
    floors, widths = _column_widths(columns, cells)
    table = _framed(columns, cells, None)
    while _width(table) > width:
        index = max(range(len(columns)), key=lambda column: widths[column] - floors[column])
        if widths[index] <= floors[index]:
            break  # nothing is left to wrap: a wide table reads better than broken words
        widths[index] = max(floors[index], widths[index] - max(1, (_width(table) - width) // len(columns)))
        table = _framed(columns, cells, widths)
    return table


def _column_widths(columns: Sequence[Column], cells: list[list[str]]) -> tuple[list[int], list[int]]:
    """Each column's longest word, which wrapping must not break, and its widest entry, in characters."""
    floors, widths = [], []
    for index, column in enumerate(columns):
        entries = [column.title, *(row[index] for row in cells)]
        floors.append(max([NARROWEST, *(len(word) for entry in entries for word in entry.split())]))
        widths.append(max(floors[-1], *map(len, entries)))
    return floors, widths


def _width(table: str) -> int:
    return max(map(len, table.splitlines()), default=0)


def _framed(columns: Sequence[Column], cells: list[list[str]], widths: Sequence[int] | None) -> str:
    """The terminal table. Its titles are tabulate's first row: as headers they would be padded by two characters."""
    import tabulate

    table = tabulate.tabulate(
        [[column.title for column in columns], tabulate.SEPARATING_LINE, *cells],
        tablefmt="simple",
        colalign=[column.align for column in columns],
        disable_numparse=True,
        maxcolwidths=widths,
    )
    return _stripped(table.splitlines()[1:-1])  # without the rules above and below


def _markdown(columns: Sequence[Column], cells: list[list[str]]) -> str:
    import tabulate

    table = tabulate.tabulate(
        cells,
        headers=[column.title for column in columns],
        tablefmt="github",
        colalign=[column.align for column in columns] if cells else None,
        disable_numparse=True,
    )
    return _stripped(table.splitlines())


def _stripped(lines: Sequence[str]) -> str:
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _csv(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        plain = _plain(columns, row)
        writer.writerow(["" if value is None else value for value in plain.values()])
    return out.getvalue()


def _plain(columns: Sequence[Column], row: Row) -> dict[str, Any]:
    """The row's values for a program: NaN and infinity, which JSON has not, are null."""
    return {column.key: _json_value(row.get(column.key)) for column in columns}


def _json_value(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
