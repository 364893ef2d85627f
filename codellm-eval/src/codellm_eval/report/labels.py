"""Names at the points of a picture, so that none hides another, a point or a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Boxes = npt.NDArray[np.float64]
    """[N, 4]: left, bottom, right, top, in pixels."""

DIRECTIONS = 16
GAP = 4.0
"""Pixels between a point and its name."""
STEP = 7.0
"""Pixels from one ring of places to the next."""
RINGS = 12
ROUNDS = 4
"""How often each name is placed again, given where the others are."""
LEADER = 12.0
"""Pixels from which a line joins a name with its point."""

HIDES_NAME, HIDES_POINT, HIDES_LINE, OUTSIDE, CROSSES, FAR = 20.0, 12.0, 2.0, 40.0, 120.0, 3.0
"""What is bad about a placement: the first four per pixel² covered, the fifth per name or point that the joining line
crosses, the last per pixel of distance."""


@attrs.frozen(kw_only=True)
class Label:
    """A name to place: its point and its size, in pixels; `reach` is how far the mark extends from the point."""

    x: float
    y: float
    width: float
    height: float
    reach: float = 4.0


@attrs.frozen
class Placement:
    """Where a name's lower left corner goes."""

    left: float
    bottom: float
    leader: tuple[float, float] | None
    """Where the line from its point ends; None where the name stands close enough without one."""
    hidden: bool
    """Whether another name covers it, since there was no room for both."""


def arrange(
    labels: Sequence[Label], bounds: tuple[float, float, float, float], lines: Sequence[Sequence[float]] = ()
) -> list[Placement]:
    """Place each of `labels` within `bounds`, away from thin things: `lines`, boxes of left, bottom, right, top.

    The same input gives the same placements. Each name is placed where it is worth most, then again given the others.
    """
    import numpy as np

    points = np.array([[each.x - r, each.y - r, each.x + r, each.y + r] for each in labels for r in [each.reach]])
    thin = np.array(lines, float).reshape(-1, 4)
    options = [_options(label) for label in labels]
    fixed = [
        HIDES_POINT * _covered(boxes, points)
        + HIDES_LINE * _covered(boxes, thin)
        + OUTSIDE * _outside(boxes, bounds)
        + CROSSES * _crossed(boxes, label, np.delete(points, number, 0))
        + _unlikely(boxes, label)
        for number, (boxes, label) in enumerate(zip(options, labels, strict=True))
    ]
    chosen: dict[int, int] = {}
    # those whose best placement is bad have the least choice, so they go first
    order = sorted(range(len(labels)), key=lambda number: -float(np.sort(fixed[number])[:8].mean()))
    for _ in range(ROUNDS):
        for number in order:
            others = np.array([options[other][taken] for other, taken in chosen.items() if other != number])
            costs = fixed[number]
            if len(others):
                costs = costs + HIDES_NAME * _covered(options[number], others)
                costs = costs + CROSSES * _crossed(options[number], labels[number], others)
            chosen[number] = int(np.argmin(costs))
    boxes = np.array([options[number][chosen[number]] for number in range(len(labels))])
    return [_placed(labels[number], boxes, number) for number in range(len(labels))]


def _options(label: Label) -> Boxes:
    """Boxes around the point, in rings: those to the right first, since equal costs take the first."""
    import numpy as np

    boxes = []
    for ring in range(RINGS):
        distance = label.reach + GAP + STEP * ring
        for turn in range(DIRECTIONS):
            angle = 2 * math.pi * turn / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            # the box's nearest point lies on the ring: beside it the box is centred, above it moves with the angle
            left = label.x + distance * across + (across - 1) / 2 * label.width
            bottom = label.y + distance * up + (up - 1) / 2 * label.height
            boxes.append([left, bottom, left + label.width, bottom + label.height])
    return np.array(boxes)


def _covered(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """Pixels² [N] of each box that `others` share with it; a thin one counts as a pixel wide."""
    import numpy as np

    if not len(others):
        return np.zeros(len(boxes))
    width = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(boxes[:, None, 0], others[None, :, 0])
    height = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(boxes[:, None, 1], others[None, :, 1])
    both = (width >= 0) & (height >= 0)
    area: npt.NDArray[np.float64] = np.where(both, np.maximum(width, 1) * np.maximum(height, 1), 0).sum(axis=1)
    return area


def _outside(boxes: Boxes, bounds: tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    """Pixels² [N] of each box that lie outside `bounds`."""
    import numpy as np

    size = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left: npt.NDArray[np.float64] = size - _covered(boxes, np.array([bounds]))
    return left


def _unlikely(boxes: Boxes, label: Label) -> npt.NDArray[np.float64]:
    """Cost [N], a little, of the distance, so that names stand close where they can."""
    import numpy as np

    near = _nearest(boxes, label)
    away: npt.NDArray[np.float64] = FAR * np.hypot(near[:, 0] - label.x, near[:, 1] - label.y)
    return away


def _crossed(boxes: Boxes, label: Label, others: Boxes) -> npt.NDArray[np.float64]:
    """Count [N] of `others` that the line from the point to each box would cross."""
    import numpy as np

    if not len(others):
        return np.zeros(len(boxes))
    steps = np.linspace(0.15, 0.95, 9)
    near, start = _nearest(boxes, label), np.array([label.x, label.y])
    path = start + steps[None, :, None] * (near - start)[:, None, :]  # [N, steps, 2]
    x, y = path[:, :, None, 0], path[:, :, None, 1]
    inside = (x > others[:, 0]) & (x < others[:, 2]) & (y > others[:, 1]) & (y < others[:, 3])
    count: npt.NDArray[np.float64] = inside.any(axis=1).sum(axis=1).astype(float)
    return count


def _nearest(boxes: Boxes, label: Label) -> npt.NDArray[np.float64]:
    """Point [N, 2] of each box that is nearest to the label's point."""
    import numpy as np

    return np.stack([np.clip(label.x, boxes[:, 0], boxes[:, 2]), np.clip(label.y, boxes[:, 1], boxes[:, 3])], axis=1)


def _placed(label: Label, boxes: Boxes, number: int) -> Placement:
    import numpy as np

    box = boxes[number]
    x, y = (float(value) for value in _nearest(box[None], label)[0])
    far = math.hypot(x - label.x, y - label.y) - label.reach > LEADER
    hidden = bool(_covered(box[None], np.delete(boxes, number, 0))[0] > 0)
    return Placement(float(box[0]), float(box[1]), (x, y) if far else None, hidden)
