"""A picture of the speed of all rows: prefill and decode, each repeat's reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codellm_eval.bench.ask.row import Row
from codellm_eval.report import canvas
from codellm_eval.report.measure import Interval
from codellm_eval.report.names import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 0.26
"""Inches of a row."""
REST = 1.25
"""Inches of what is above and below the rows."""


def draw(
    rows: Sequence[Row], panels: Sequence[tuple[str, Sequence[Interval | None]]], title: str, subtitle: str
) -> Figure:
    """The picture: each panel is a label and a value for each row; call it within `canvas.style()`."""
    backends = [row.backend for row in rows]
    height = REST + LINE * max(3, len(rows))
    figure, axes = canvas.canvas(title, subtitle, height=height, panels=len(panels), backends=backends)
    looks = canvas.kinds(backends)
    for panel, (label, values) in zip(axes, panels, strict=True):
        panel.set_xlabel(label)
        _panel(panel, values, [looks[backend] for backend in backends])
    names = [canvas.drawable(name) for name in short_names(rows)]
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)  # the first row on top, as in the table
    return figure


def _panel(axes: Axes, values: Sequence[Interval | None], looks: Sequence[tuple[str, str]]) -> None:
    import matplotlib.ticker

    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    known = [value for value in values if value is not None]
    if known:
        canvas.scale(axes, "x", known, margin=0.06, zero=True)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    for row, (value, (colour, marker)) in enumerate(zip(values, looks, strict=True)):
        axes.axhline(row, color=canvas.FAINT, linewidth=0.6, zorder=0)
        if value is None:
            axes.text(
                0.02,
                row,
                "none",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=canvas.SMALL,
                color=canvas.SOFT,
            )
            continue
        axes.hlines(row, value.low, value.high, color=colour, linewidth=1.2, zorder=2)
        axes.plot(value.middle, row, marker=marker, markersize=canvas.MARK, color=colour, zorder=3)
