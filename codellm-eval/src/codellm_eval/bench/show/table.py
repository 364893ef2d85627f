"""All rows as tables: readable in 80 columns of a terminal, complete for programs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import attrs

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records import figures
from codellm_eval.bench.records.figure import Table
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import for_people, for_programs
from codellm_eval.files import tables

WIDTH = 80
REASON_WIDTH = 11
"""Characters of a line of a cell that holds a reason: what 80 columns leave beside the figures."""
GROWTH_COLUMNS = 6
"""Workloads of one table: what 80 columns leave room for."""
NONE = ("-", "")
"""The cell of a figure that nobody asked for."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def render(records: Sequence[Record], plan: Plan, notes: Sequence[str], format: str, width: int = WIDTH) -> str:
    """The tables, and for people (`table`, `md`) the notes below them.

    Raises:
        UnknownNameError: no such format.
    """
    parts = sections(records, plan)
    if format == "table":
        shown = [terminal(section, records, width) for section in parts]
        return "\n".join([*shown, "".join(wrapped(note, width) for note in notes)])
    if format == "md":
        shown = [markdown(section, records) for section in parts]
        return "\n".join([*shown, "".join(map(listed, notes))])
    rows = [for_programs(record) for record in records]
    columns = [tables.Column(key, key) for key in dict.fromkeys(key for row in rows for key in row)]
    return tables.render(columns, rows, format)


@attrs.frozen
class Section:
    """A table of its own: `columns` are the keys of figures, each with its name and unit."""

    title: str
    columns: Mapping[str, tuple[str, str]]


def sections(records: Sequence[Record], plan: Plan) -> list[Section]:
    """The tables of a benchmark, each with figures: what is compared first, then what explains it."""
    models = ", ".join(dict.fromkeys(record.model for record in records))
    protocols = "".join(f"; {each}" for each in _protocols(records))
    first = Section(
        f"{models}: {plan.protocol}{protocols}" if models else plan.protocol,
        _columns("first", plan),
    )
    latency = Section(
        f"gaps between the tokens of {plan.named_request}; memory at its peak",
        _columns("latency", plan),
    )
    further = [*_quality(records, plan), latency, *_growth(records)]
    return [first, *filter(None, (_with_figures(section, records) for section in further))]


def _columns(table: Table, plan: Plan) -> dict[str, tuple[str, str]]:
    return {each.key: each.head(plan) for each in figures.FIGURES if each.table == table and each.asked(plan)}


def _quality(records: Sequence[Record], plan: Plan) -> Iterator[Section]:
    """The quality that no code had to run for, beside the reference row's."""
    if not any(record.bits_per_byte is not None or record.canonical for record in records):
        return
    against = next((record.against.reference for record in records if record.against is not None), None)
    title = f"quality against {against}" if against is not None else "quality"
    solutions = "canonical: HumanEval's solutions"
    yield Section(
        "; ".join([title, *_protocols(records), solutions]),
        _columns("quality", plan),
    )
    yield Section(
        "; ".join(["the same texts by token", *_reading(records), solutions]),
        _columns("tokens", plan),
    )


def _reading(records: Sequence[Record]) -> Iterator[str]:
    """The protocol of bits per byte, where there are some."""
    readings = " / ".join(dict.fromkeys(record.reading for record in records if record.reading))
    if readings:
        yield f"bits/byte: {readings}"


def _protocols(records: Sequence[Record]) -> Iterator[str]:
    """The protocols of quality in a few words, of what was measured."""
    yield from _reading(records)
    if any(record.tasks for record in records):
        yield "pass@1: HumanEval, greedy"


def _growth(records: Sequence[Record]) -> Iterator[Section]:
    """Further workloads, each of which some row was asked for: those of one sequence, then the batches."""
    asked = dict.fromkeys(each for record in records if record.plan for each in record.plan.workloads)
    batches = dict.fromkeys(each for record in records if record.plan for each in record.plan.together)
    alone = {
        each.key: (f"{each.kind}{each.tokens}", f"@ d{each.context}" if each.context else "")
        for each in asked
        if each not in batches
    }
    together = {each.key: (str(attrs.evolve(each, batch_size=1)), f"batch {each.batch_size}") for each in batches}
    for title, columns in (
        ("tok/s of one sequence, by size and context", alone),
        ("tok/s of all sequences together, by batch size", together),
    ):
        keys = list(columns)
        for start in range(0, len(keys), GROWTH_COLUMNS):
            yield Section(title, {key: columns[key] for key in keys[start : start + GROWTH_COLUMNS]})


def _with_figures(section: Section, records: Sequence[Record]) -> Section | None:
    """The section without columns that no row has a figure or a reason for; None where none is left."""
    shown = [for_people(record) for record in records if record.error is None]
    columns = {
        key: title for key, title in section.columns.items() if any(cells.get(key, NONE) != NONE for cells in shown)
    }
    return attrs.evolve(section, columns=columns) if columns else None


def terminal(section: Section, records: Sequence[Record], width: int = WIDTH) -> str:
    """Two lines a row: the figures, and under them the spreads.

    The row's name stands beside them on one line where the table fits `width` so, else broken, else above them.
    """
    names = [str(record.row) for record in records]
    bodies = [_body(section, record) for record in records]
    lines = _beside(section, names, bodies)
    over = max(map(len, lines)) - width
    if over > 0:
        room = max(map(len, names)) - over
        parts = [broken(name, room) for name in names]
        lines = _beside(section, ["\n".join(each) for each in parts], bodies)
        if max(map(len, lines)) > width:
            lines = _above(section, [broken(name, width) for name in names], bodies)
    return wrapped(section.title, width) + "\n" + "\n".join(lines) + "\n"


def _body(section: Section, record: Record) -> list[str]:
    """The cells of a row, each in its lines."""
    cells = for_people(record)
    return [_lines(*cells.get(key, NONE)) for key in section.columns]


def _beside(section: Section, names: Sequence[str], bodies: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first column holds the names."""
    import tabulate

    body = [[name, *cells] for name, cells in zip(names, bodies, strict=True)]
    # as a row of the body: tabulate pads the titles of a header, which 80 columns have no room for
    table = tabulate.tabulate(
        [["row", *("\n".join(title) for title in section.columns.values())], *body],
        tablefmt="plain",
        colalign=["left", *["right"] * len(section.columns)],
        disable_numparse=True,
    )
    lines = [line.rstrip() for line in table.splitlines()]
    return [*lines[:2], "-" * max(map(len, lines)), *lines[2:]]


def _above(section: Section, names: Sequence[Sequence[str]], bodies: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table that has each row's name on lines of its own."""
    table = _beside(section, [""] * len(names), bodies)
    lines, rest = table[:3], table[3:]
    for name, cells in zip(names, bodies, strict=True):
        count = 1 + max(cell.count("\n") for cell in cells)
        lines += [*name, *rest[:count]]
        rest = rest[count:]
    return lines


def _lines(figure: str, spread: str) -> str:
    """A figure over its spread; a reason of several words over as many lines as it takes."""
    if spread:
        return f"{figure}\n{spread}"
    return "\n".join(textwrap.wrap(_CONTROL.sub(" ", figure), REASON_WIDTH, break_long_words=False))


def markdown(section: Section, records: Sequence[Record]) -> str:
    """One line a row, the spread beside each figure."""
    columns = [tables.Column("row", "row")]
    columns += [
        tables.Column(key, f"{name} {unit}" if not name.endswith("/") else name + unit, align="right")
        for key, (name, unit) in section.columns.items()
    ]
    rows = []
    for record in records:
        cells = for_people(record)
        shown = {key: " ".join(filter(None, cells.get(key, NONE))) for key in section.columns}
        rows.append({"row": str(record.row), **shown})
    return f"{_CONTROL.sub(' ', section.title)}\n\n{tables.render(columns, rows, 'md')}"


def listed(note: str) -> str:
    """A note as an item of a Markdown list."""
    return f"- {_CONTROL.sub(' ', note)}\n"


def broken(name: str, width: int) -> list[str]:
    """A row's name in lines of at most `width` characters, broken between its parts, else between a key and its value.

    What is longer even so stays whole.
    """
    lines = [""]
    for part in re.findall(r"[^:,]*[:,]*", name):
        for piece in [part] if len(part) <= width else re.findall(r"[^=]*=*", part):
            if lines[-1] and len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
    return [line for line in lines if line]


def wrapped(note: str, width: int) -> str:
    """A note for a terminal: its own lines, within `width`."""
    lines = textwrap.wrap(_CONTROL.sub(" ", note), width, subsequent_indent="  ", break_long_words=False)
    return "\n".join(lines) + "\n"
