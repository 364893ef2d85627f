"""The pictures of a grid: each figure by context, a panel for each batch size, a line for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codellm_eval.grid.cell import Cell
from codellm_eval.grid.figures import FIGURES, Figure
from codellm_eval.grid.folder import Grid
from codellm_eval.grid.notes import heading, name_of
from codellm_eval.grid.plan import Size
from codellm_eval.report import canvas
from codellm_eval.report.curves import titles
from codellm_eval.report.measure import Interval
from codellm_eval.report.names import shorten
from codellm_eval.report.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 4
"""Batch sizes of one picture: more would be too narrow to read."""
TOP = 0.96
"""Of the height: where cells stand that were out of memory."""
ASIDE = 0.8
"""Of the room of a context: what such cells of one size share."""


def pictures(grid: Grid) -> list[Picture]:
    """A picture of each figure that some cell has. matplotlib is imported here.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = [each for each in FIGURES[grid.plan.protocol] if any(map(each.of, grid.cells.values()))]
    batches = [grid.batch_sizes[start : start + PANELS] for start in range(0, len(grid.batch_sizes), PANELS)]
    with canvas.style():
        return [
            _picture(grid, figure, chosen, f"-{number}" if number > 1 else "")
            for figure in figures
            for number, chosen in enumerate(batches, 1)
        ]


def _picture(grid: Grid, figure: Figure, batches: Sequence[int], part: str) -> Picture:
    name = name_of(figure, grid)
    title = f"{name[0].upper()}{name[1:]}, {figure.unit}"
    names = titles(grid.rows, canvas.LEGEND_NAME)
    looks = canvas.kinds(names)
    drawn, axes = canvas.canvas(title, _subtitle(grid), panels=len(batches), backends=names)
    values = [value for cell in grid.cells.values() if (value := Interval.of(figure.shown(cell)))]
    canvas.scale(axes[0], "y", values, margin=0.12, zero=True)
    for panel, batch_size in zip(axes, batches, strict=True):
        panel.set_title(f"batch {batch_size}", fontsize=canvas.SMALL, color=canvas.INK)
        panel.set_xticks(range(len(grid.contexts)), [str(each) for each in grid.contexts], rotation=90)
        panel.set_xlim(-0.5, len(grid.contexts) - 0.5)
        for index, row in enumerate(grid.rows):
            cells = [grid.cells.get((row, Size(batch_size, context))) for context in grid.contexts]
            _line(panel, cells, figure, looks[names[index]])
            aside = ASIDE * ((index + 0.5) / len(grid.rows) - 0.5)
            _out_of_memory(panel, cells, looks[names[index]][0], aside)
    axes[len(axes) // 2].set_xlabel("tokens of each prompt")
    svg, png = canvas.render(drawn)
    return Picture(name=f"{figure.key}{part}", title=title, caption=_subtitle(grid), svg=svg, png=png)


def _line(panel: Axes, cells: Sequence[Cell | None], figure: Figure, look: tuple[str, str]) -> None:
    colour, marker = look
    shown = [(index, Interval.of(figure.shown(cell))) for index, cell in enumerate(cells) if cell is not None]
    points = [(index, value) for index, value in shown if value is not None]
    if not points:
        return
    positions = [index for index, _ in points]
    panel.plot(
        positions,
        [value.middle for _, value in points],
        color=colour,
        marker=marker,
        markersize=canvas.MARK - 1.5,
        linewidth=1.3,
        zorder=3,
    )
    panel.vlines(
        positions, [value.low for _, value in points], [value.high for _, value in points], color=colour, linewidth=0.9
    )


def _out_of_memory(panel: Axes, cells: Sequence[Cell | None], colour: str, aside: float) -> None:
    """A cross on top for each cell that was."""
    positions = [
        index + aside for index, cell in enumerate(cells) if cell is not None and cell.out_of_memory is not None
    ]
    panel.plot(
        positions,
        [TOP] * len(positions),
        transform=panel.get_xaxis_transform(),
        color=colour,
        marker="x",
        markersize=canvas.MARK - 1,
        linestyle="",
        zorder=3,
    )


def _subtitle(grid: Grid) -> str:
    """What was measured, where and when: a picture goes its own ways."""
    made = grid.manifest
    where = ", ".join(made.get("gpus", ())) or str(made.get("cpu"))
    out = " ×: out of memory." if any(cell.out_of_memory is not None for cell in grid.cells.values()) else ""
    return (
        f"{shorten(heading(grid), 50)} on {shorten(where, 60)}, {str(made.get('date'))[:10]}; {grid.plan}; lines: from "
        f"the least to the greatest.{out}"
    )
