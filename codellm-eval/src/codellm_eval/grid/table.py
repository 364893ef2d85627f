"""A grid as tables: a line for each row and batch size, a column for each context; complete for programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import attrs

from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.show.cells import significant
from codellm_eval.bench.show.table import broken, listed, wrapped
from codellm_eval.files import tables
from codellm_eval.grid.cell import Cell
from codellm_eval.grid.figures import FIGURES, Figure, SpeedUp, for_programs
from codellm_eval.grid.folder import Grid
from codellm_eval.grid.notes import heading, name_of, notes
from codellm_eval.grid.plan import Size

WIDTH = 80
COLUMNS = 4
"""Contexts of one table: what 80 columns leave room for."""
GAP = "  "

Shown = tuple[str, str]
"""A figure, and what stands below it."""
NONE: Shown = ("-", "")


@attrs.frozen(kw_only=True)
class Line:
    """A row at one batch size: what is shown for each context."""

    row: Row
    batch_size: int
    cells: Sequence[Shown]


@attrs.frozen(kw_only=True)
class Section:
    """A table; the lines of one row are together."""

    title: str
    contexts: Sequence[int]
    lines: Sequence[Line]


def render(grid: Grid, format: str, width: int = WIDTH) -> str:
    """The tables, and for people (`table`, `md`) the notes below them.

    Raises:
        UnknownNameError: no such format.
    """
    remarks = notes(grid)
    if format == "table":
        return "\n".join(
            [*(terminal(each, width) for each in sections(grid)), "".join(wrapped(n, width) for n in remarks)]
        )
    if format == "md":
        return "\n".join([*map(markdown, sections(grid)), "".join(map(listed, remarks))])
    cells = [cell for row in grid.rows for cell in grid.of(row)]
    rows = [for_programs(cell, grid.reference_at(cell.size), grid.plan.protocol) for cell in cells]
    columns = [tables.Column(key, key) for key in dict.fromkeys(key for row in rows for key in row)]
    return tables.render(columns, rows, format)


def sections(grid: Grid) -> list[Section]:
    """A table for each figure, then how much faster than the reference row the others are."""
    figures = FIGURES[grid.plan.protocol]
    others = [row for row in grid.rows if row != grid.reference]
    found = [_sections(grid, _title(grid, each), grid.rows, _shows(each)) for each in figures]
    if others:
        compared = [each for each in figures if each.compared]
        found += [_sections(grid, _against(grid, each), others, _compares(grid, each)) for each in compared]
    return list(itertools.chain.from_iterable(found))


def _title(grid: Grid, figure: Figure) -> str:
    return f"{heading(grid)}: {name_of(figure, grid)}, {figure.unit}; {grid.plan}"


def _against(grid: Grid, figure: Figure) -> str:
    return f"{heading(grid)}: {figure.title}, how many times faster than {grid.reference}; {grid.plan}"


def _shows(figure: Figure) -> Callable[[Cell], Shown]:
    def show(cell: Cell) -> Shown:
        repeats = figure.shown(cell)
        if repeats is None:
            return _gap(cell)
        low, high = min(repeats.values), max(repeats.values)
        spread = f"{significant(low)}–{significant(high)}" if len(repeats.values) > 1 else ""
        return significant(repeats.median), spread

    return show


def _compares(grid: Grid, figure: Figure) -> Callable[[Cell], Shown]:
    def show(cell: Cell) -> Shown:
        found = SpeedUp.of(figure, grid.reference_at(cell.size), cell)
        if found is None:
            return _gap(cell)
        below = {True: "noise", None: "once", False: f"{found.low:.2f}–{found.high:.2f}"}[found.noise]
        return f"{found.value:.2f}", below

    return show


def _gap(cell: Cell) -> Shown:
    if cell.out_of_memory is not None:
        return "out of", "memory"
    return ("failed", "") if cell.error is not None else NONE


def _sections(grid: Grid, title: str, rows: Sequence[Row], show: Callable[[Cell], Shown]) -> Iterator[Section]:
    """A section for each few contexts."""
    for start in range(0, len(grid.contexts), COLUMNS):
        contexts = grid.contexts[start : start + COLUMNS]
        pairs = itertools.product(rows, grid.batch_sizes)
        lines = [_line(grid, row, batch_size, contexts, show) for row, batch_size in pairs]
        yield Section(title=title, contexts=contexts, lines=lines)


def _line(grid: Grid, row: Row, batch_size: int, contexts: Sequence[int], show: Callable[[Cell], Shown]) -> Line:
    found = [grid.cells.get((row, Size(batch_size, context))) for context in contexts]
    return Line(row=row, batch_size=batch_size, cells=[NONE if cell is None else show(cell) for cell in found])


def terminal(section: Section, width: int = WIDTH) -> str:
    """Lines with each row's name beside them, broken where the table would be wider than `width`."""
    head = ["batch", *map(str, section.contexts)]
    blocks = [(row, _text_lines(list(lines))) for row, lines in itertools.groupby(section.lines, lambda line: line.row)]
    body = [line for _, lines in blocks for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    room = width - sum(widths) - len(GAP) * len(widths)
    names = [broken(str(row), room) for row, _ in blocks]
    longest = max(len(part) for parts in (["row"], *names) for part in parts)

    def joined(name: str, cells: Sequence[str]) -> str:
        shown = (cell.rjust(size) for cell, size in zip(cells, widths, strict=True))
        return GAP.join([name.ljust(longest), *shown]).rstrip()

    lines = [joined("row", head), "-" * (longest + sum(widths) + len(GAP) * len(widths))]
    for parts, (_, block) in zip(names, blocks, strict=True):
        pairs = itertools.zip_longest(parts, block, fillvalue=None)
        lines += [joined(part or "", cells or [""] * len(head)) for part, cells in pairs]
    return wrapped(section.title, width) + "\n" + "\n".join(lines) + "\n"


def _text_lines(lines: Sequence[Line]) -> list[list[str]]:
    """The lines of a row as text: two for each batch size, one where nothing stands below."""
    found = []
    for line in lines:
        above, below = zip(*line.cells, strict=True)
        found.append([str(line.batch_size), *above])
        if any(below):
            found.append(["", *below])
    return found


def markdown(section: Section) -> str:
    """Lines of Markdown, one each, what stands below a figure beside it."""
    columns = [tables.Column("row", "row"), tables.Column("batch", "batch", align="right")]
    columns += [tables.Column(str(context), str(context), align="right") for context in section.contexts]
    rows = [
        {"row": str(line.row), "batch": str(line.batch_size)}
        | {str(context): _beside(*cell) for context, cell in zip(section.contexts, line.cells, strict=True)}
        for line in section.lines
    ]
    return f"{section.title}\n\n{tables.render(columns, rows, 'md')}"


def _beside(figure: str, below: str) -> str:
    if not below:
        return figure
    return f"{figure} ({below})" if figure[0].isdigit() else f"{figure} {below}"
