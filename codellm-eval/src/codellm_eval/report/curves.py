"""A picture of how a figure grows with a size: a line for each row, named at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.ask.row import Row
from codellm_eval.report import canvas
from codellm_eval.report.measure import Interval
from codellm_eval.report.names import LONGEST, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 8.0
"""Pixels from a line's end to its name."""


@attrs.frozen
class Curve:
    """A row's values by size, ascending."""

    row: Row
    points: Sequence[tuple[int, Interval]]


def draw(curves: Sequence[Curve], x_label: str, y_label: str, title: str, subtitle: str) -> Figure:
    """The picture; call it within `canvas.style()`. Sizes are on a logarithmic axis, values from 0."""
    figure, [axes] = canvas.canvas(title, subtitle)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    looks = canvas.kinds([str(curve.row) for curve in curves])
    for curve in curves:
        _line(axes, curve, *looks[str(curve.row)])
    canvas.scale(axes, "y", [value for curve in curves for _, value in curve.points], margin=0.06, zero=True)
    _sizes(axes, sorted({size for curve in curves for size, _ in curve.points}))
    canvas.settle(figure)
    _names(axes, curves, [looks[str(curve.row)][0] for curve in curves])
    _part(axes)
    return figure


def _line(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    sizes, values = zip(*curve.points, strict=True)
    middles = [value.middle for value in values]
    axes.plot(sizes, middles, color=colour, marker=marker, markersize=canvas.MARK - 1.5, linewidth=1.3, zorder=3)
    axes.vlines(sizes, [value.low for value in values], [value.high for value in values], color=colour, linewidth=0.9)


def _sizes(axes: Axes, sizes: Sequence[int]) -> None:
    """An axis of the sizes that were measured and no others."""
    import matplotlib.ticker

    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _part(axes: Axes) -> None:
    """Let a size that touches the next one end at its mark, instead of standing across it."""
    labels = axes.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    for label, box, after in zip(labels, boxes, boxes[1:], strict=False):
        if box.x1 + GAP / 2 > after.x0:
            label.set_horizontalalignment("right")


def _names(axes: Axes, curves: Sequence[Curve], colours: Sequence[str]) -> None:
    """Write each row's name right of its last point, the names apart from each other; the axis grows to hold them."""
    names = [canvas.drawable(name) for name in titles([curve.row for curve in curves])]
    texts = [axes.text(0, 0, name, fontsize=canvas.SMALL, color=canvas.INK, va="center") for name in names]
    boxes = [text.get_window_extent() for text in texts]
    window = axes.get_window_extent()
    low, high = axes.get_xlim()
    share = (max(box.width for box in boxes) + 3 * GAP) / window.width
    axes.set_xlim(low, high * (high / low) ** (share / (1 - share)))
    ends = [(curve.points[-1][0], curve.points[-1][1].middle) for curve in curves]
    pixels = axes.transData.transform(ends)
    left = axes.transData.transform((max(size for size, _ in ends), 0))[0] + 2 * GAP
    heights = spread([float(y) for _, y in pixels], boxes[0].height, window.y0, window.y1)
    for text, (x, y), height, colour in zip(texts, pixels, heights, colours, strict=True):
        canvas.put(text, float(left), height)
        joint = axes.transData.inverted().transform([(x + GAP / 2, y), (left - 3, height)])
        axes.plot(joint[:, 0], joint[:, 1], color=colour, linewidth=0.6, zorder=2, clip_on=False)


def titles(rows: Sequence[Row], longest: int = LONGEST) -> list[str]:
    """The short names, with the backend where the rows have several, since each row has a colour of its own here."""
    names = short_names(rows, longest)
    if len({row.backend for row in rows}) == 1:
        return names
    return [
        name if name.startswith(row.backend) else f"{row.backend}:{name}" for row, name in zip(rows, names, strict=True)
    ]


def spread(wanted: Sequence[float], height: float, low: float, high: float) -> list[float]:
    """Positions near the `wanted` ones, in their order and at least `height` apart, as far as `low` to `high` has room.

    Neighbours that are too close share the middle of what they want, like books pushed apart.
    """
    height = min(height, (high - low) / max(1, len(wanted)))

    def inside(start: float, count: int) -> float:
        return min(max(start, low + height / 2), high - height * (count - 0.5))

    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    groups: list[tuple[float, list[int]]] = []  # the lowest position of each, and who stands there
    for number in order:
        group = [number]
        start = inside(wanted[number], 1)
        while groups and start - groups[-1][0] < height * len(groups[-1][1]):
            group = groups.pop()[1] + group
            middle = sum(wanted[each] - height * index for index, each in enumerate(group)) / len(group)
            start = inside(middle, len(group))
        groups.append((start, group))
    positions = [0.0] * len(wanted)
    for start, group in groups:
        for index, number in enumerate(group):
            positions[number] = start + height * index
    return positions
