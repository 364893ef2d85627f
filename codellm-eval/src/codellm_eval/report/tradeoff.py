"""A picture of what one figure costs in another: a point for each row, and the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.ask.row import Row
from codellm_eval.report import canvas
from codellm_eval.report.front import Cost, pareto_front
from codellm_eval.report.labels import Label, Placement, arrange
from codellm_eval.report.measure import Interval, Measure
from codellm_eval.report.names import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

MARGIN = 0.14
"""Of an axis' length, free at each end for the names of the points there."""


@attrs.frozen(kw_only=True)
class Spot:
    """A row in the picture."""

    row: Row
    name: str
    x: Interval
    y: Interval
    best: bool = False
    """Whether no other row beats it."""


def spots(rows: Sequence[Row], x: Sequence[Interval], y: Sequence[Interval], less: tuple[bool, bool]) -> list[Spot]:
    """The rows as points, of which some are on the front; `less` says of which axes less is better."""
    signs = [1 if each else -1 for each in less]
    front = pareto_front([Cost(signs[0] * a.middle, signs[1] * b.middle) for a, b in zip(x, y, strict=True)])
    names = short_names(rows)
    return [
        Spot(row=rows[number], name=names[number], x=x[number], y=y[number], best=number in front)
        for number in range(len(rows))
    ]


def draw(points: Sequence[Spot], x: Measure, y: Measure, title: str, subtitle: str) -> Figure:
    """The picture; call it within `canvas.style()`."""
    backends = [spot.row.backend for spot in points]
    figure, [axes] = canvas.canvas(title, subtitle, backends=backends)
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    canvas.scale(axes, "x", [spot.x for spot in points], margin=MARGIN)
    canvas.scale(axes, "y", [spot.y for spot in points], margin=MARGIN)
    looks = canvas.kinds(backends)
    for spot in points:
        _point(axes, spot, *looks[spot.row.backend])
    front = _front(axes, [spot for spot in points if spot.best], x, y) if len(points) > 1 else []
    canvas.settle(figure)
    _names(axes, points, front)
    return figure


def _point(axes: Axes, spot: Spot, colour: str, marker: str) -> None:
    axes.errorbar(
        spot.x.middle,
        spot.y.middle,
        xerr=[[spot.x.middle - spot.x.low], [spot.x.high - spot.x.middle]],
        yerr=[[spot.y.middle - spot.y.low], [spot.y.high - spot.y.middle]],
        fmt=marker,
        markersize=canvas.MARK,
        color=colour,
        markerfacecolor=colour if spot.best else canvas.PAPER,
        elinewidth=0.9,
        capsize=0,
        zorder=3,
    )


def _front(axes: Axes, best: Sequence[Spot], x: Measure, y: Measure) -> list[tuple[float, float]]:
    """The border of what can be had: from the picture's edge over the front's points to its other edge.

    Between two points it is a step, since nothing was measured there.
    """
    corners = [(spot.x.middle, spot.y.middle) for spot in sorted(best, key=lambda spot: spot.x.middle)]
    left, right = axes.get_xlim()
    worst = axes.get_ylim()[1 if y.less else 0]
    path = [(corners[0][0], worst)] if x.less else [(left, corners[0][1])]
    for here, after in zip(corners, [*corners[1:], None], strict=True):
        path.append(here)
        if after is not None:
            path.append((after[0], here[1]) if x.less else (here[0], after[1]))
    path.append((right, corners[-1][1]) if x.less else (corners[-1][0], worst))
    across, up = zip(*path, strict=True)
    axes.plot(across, up, color=canvas.SOFT, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
    # towards the worse
    axes.fill_between(
        across, up, axes.get_ylim()[1 if y.less else 0], color=canvas.FAINT, alpha=0.35, linewidth=0, zorder=0
    )
    return path


def _names(axes: Axes, points: Sequence[Spot], front: Sequence[tuple[float, float]]) -> None:
    """Write each row's name beside its point; those that would hide another are left out, the front's last."""
    texts = [_text(axes, spot) for spot in points]
    boxes = [text.get_window_extent() for text in texts]
    pixel = axes.transData.transform
    labels = []
    for spot, box in zip(points, boxes, strict=True):
        x, y = pixel((spot.x.middle, spot.y.middle))
        labels.append(Label(x=float(x), y=float(y), width=box.width, height=box.height, reach=canvas.MARK / 2 + 1))
    window = axes.get_window_extent()
    placements = arrange(labels, (window.x0, window.y0, window.x1, window.y1), _thin(axes, points, front))
    for spot, text, label, found in zip(points, texts, labels, placements, strict=True):
        if found.hidden and not spot.best:
            text.remove()
        else:
            _write(axes, text, label, found)


def _text(axes: Axes, spot: Spot) -> Text:
    return axes.text(
        0,
        0,
        canvas.drawable(spot.name),
        fontsize=canvas.SMALL,
        color=canvas.INK if spot.best else canvas.SOFT,
        fontweight="bold" if spot.best else "normal",
        va="bottom",
        zorder=4,
    )


def _write(axes: Axes, text: Text, label: Label, found: Placement) -> None:
    """Put the text where it goes, and the line to its point where that is far."""
    canvas.put(text, found.left, found.bottom)
    if found.leader:
        ends = axes.transData.inverted().transform([(label.x, label.y), found.leader])
        axes.plot(ends[:, 0], ends[:, 1], color=canvas.SOFT, linewidth=0.5, zorder=2.5)


def _thin(axes: Axes, points: Sequence[Spot], front: Sequence[tuple[float, float]]) -> list[list[float]]:
    """What names should not cover, in pixels: the spreads and the front."""
    pairs = [((spot.x.low, spot.y.middle), (spot.x.high, spot.y.middle)) for spot in points]
    pairs += [((spot.x.middle, spot.y.low), (spot.x.middle, spot.y.high)) for spot in points]
    pairs += list(itertools.pairwise(front))
    boxes = []
    for start, end in pairs:
        (a, b), (c, d) = axes.transData.transform([start, end])
        boxes.append([min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1])
    return boxes
