"""The pictures of a benchmark, or why one is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.figures import BITS, DECODE, POINTS, PREFILL
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.report import canvas, curves, measure, rates, tradeoff
from codellm_eval.report.curves import Curve
from codellm_eval.report.measure import Interval, Measure
from codellm_eval.report.names import shorten
from codellm_eval.stats.paired import LEVEL
from codellm_eval.stats.repeats import Repeats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen(kw_only=True)
class Picture:
    """A picture, once as SVG and once as PNG."""

    name: str
    """Of its files, without the ending."""
    title: str
    caption: str
    svg: str
    png: bytes


@attrs.frozen(kw_only=True)
class Missing:
    """A picture that cannot be drawn, and why."""

    title: str
    reason: str


def pictures(folder: Folder) -> list[Picture | Missing]:
    """Draw every picture of the results, in the order of the report. matplotlib is imported here.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with canvas.style():
        x = measure.speed(folder.plan)
        return [
            _tradeoff(folder, "speed-quality", "Speed against quality", x),
            _tradeoff(folder, "memory-quality", "Memory against quality", measure.memory(folder.records)),
            _rates(folder),
            _batch(folder),
            _context(folder),
        ]


def _picture(name: str, title: str, caption: str, figure: Figure) -> Picture:
    svg, png = canvas.render(figure)
    return Picture(name=name, title=title, caption=caption, svg=svg, png=png)


def subtitle(folder: Folder) -> str:
    """What was measured, where and when: a picture goes its own ways."""
    models = shorten(", ".join(dict.fromkeys(record.model for record in folder.records)), 40)
    made = folder.manifest
    if not made:
        return f"{models}."
    threads = {record.info.threads for record in folder.records if record.info and record.info.threads}
    count = f", threads: {', '.join(map(str, sorted(threads)))}" if threads else ""
    on_gpu = any(record.info.device != "cpu" for record in folder.records if record.info)
    where = (", ".join(made.get("gpus", ())) if on_gpu else "") or str(made.get("cpu"))
    return f"{models} on {shorten(where, 40)}{count}, {str(made.get('date'))[:10]}."


def _tradeoff(folder: Folder, name: str, title: str, x: Measure) -> Picture | Missing:
    y = measure.quality()
    both = [(record, a, b) for record in folder.records for a, b in [(x.of(record), y.of(record))] if a and b]
    if len(both) < 2:
        return Missing(title=title, reason=_no_tradeoff(folder.records, y, len(both)))
    records, across, up = zip(*both, strict=True)
    points = tradeoff.spots([record.row for record in records], across, up, (x.less, y.less))
    legend = f"{subtitle(folder)} Filled: on the Pareto front (dashed); {_reach(folder, across)}{_upright(records)}"
    best = [str(spot.row) for spot in points if spot.best]
    caption = (
        f"On the Pareto front, where no other row is better in one and no worse in the other: {', '.join(best)}. "
        f"A point within another's reach may change places with it.{_absent(folder.records, records)}"
    )
    return _picture(name, title, caption, tradeoff.draw(points, x, y, title, legend))


def _reach(folder: Folder, intervals: Sequence[Interval]) -> str:
    if all(each.low == each.high for each in intervals):
        return "each measured once."
    return f"lines: from the least to the greatest of {folder.plan.repeats} repeats."


def _upright(records: Sequence[Record]) -> str:
    """What the vertical lines are, where there are some."""
    compared = [each for record in records if (each := record.against) and each.bits and each.bits.interval]
    if not compared:
        return ""
    return f" Upright: {100 * LEVEL:.0f} % interval of the difference from {shorten(str(compared[0].reference), 30)}."


def _no_tradeoff(records: Sequence[Record], y: Measure, count: int) -> str:
    """Why fewer than two rows have both figures."""
    reasons = dict.fromkeys(
        gap.note for record in records if y.of(record) is None and (gap := BITS.gap(record)) is not None
    )
    if count == 0 and reasons:
        return "; ".join(reasons)
    if count == 0:
        return "no row has both figures"
    return "it takes two rows that have both figures, and there is one"


def _absent(records: Sequence[Record], shown: Sequence[Record]) -> str:
    absent = [str(record.row) for record in records if record not in shown]
    return f" Not in the picture, since a figure is missing: {', '.join(absent)}." if absent else ""


def _rates(folder: Folder) -> Picture | Missing:
    title = "Speed of each row"
    prompt, decode = (figure.head(folder.plan)[0] for figure in (PREFILL, DECODE))
    panels = [
        (f"{prompt}, {PREFILL.unit.name}", [Interval.of(record.prefill) for record in folder.records]),
        (f"{decode}, {DECODE.unit.name}", [Interval.of(record.decode) for record in folder.records]),
    ]
    known = [value for _, values in panels for value in values if value]
    if not known:
        return Missing(title=title, reason="no row worked")
    legend = f"{subtitle(folder)} {_reach(folder, known).capitalize()}"
    figure = rates.draw([record.row for record in folder.records], panels, title, legend)
    caption = (
        f"{prompt}: prompt tokens per second until the first token; {decode}: tokens per second after it, one sequence."
    )
    return _picture("speed", title, caption, figure)


def _batch(folder: Folder) -> Picture | Missing:
    title = "Throughput by batch size"
    sizes = [each for each in _decoded(folder) if each.batch_size > 1]
    depth = min((each.context for each in sizes), default=0)
    found = _curves(
        folder,
        lambda each: each.batch_size if each.context == depth else None,
        Interval.of,
    )
    if not found:
        return Missing(title=title, reason=_no_growth(folder.records))
    name = Workload(kind="tg", tokens=folder.plan.new_tokens, context=depth)
    return _growth(folder, found, "batch", title, "sequences together", f"{name} of all together, tokens/s")


def _context(folder: Folder) -> Picture | Missing:
    title = "Time per token by context"
    found = _curves(
        folder,
        lambda each: each.context if each.batch_size == 1 and each.context else None,
        lambda rate: Interval.of(rate.map(lambda value: 1000 / value if value else 0)),
    )
    if not found:
        return Missing(title=title, reason=_no_growth(folder.records))
    label = f"time per token of tg{folder.plan.new_tokens}, ms"
    return _growth(folder, found, "context", title, "tokens of context before it", label)


def _decoded(folder: Folder) -> list[Workload]:
    return [
        point.workload
        for record in folder.records
        for point in record.points
        if point.workload.kind == "tg" and point.workload.tokens == folder.plan.new_tokens
    ]


def _curves(
    folder: Folder, size: Callable[[Workload], int | None], value: Callable[[Repeats], Interval | None]
) -> list[Curve]:
    """A curve for each row that has two points of the plan's new tokens for which there is a `size`."""
    wanted = set(_decoded(folder))
    found = []
    for record in folder.records:
        points = [
            (x, shown)
            for point in record.points
            if point.workload in wanted
            for x, shown in [(size(point.workload), value(point.rate))]
            if x is not None and shown is not None
        ]
        if len(points) > 1:
            found.append(Curve(record.row, sorted(points, key=lambda pair: pair[0])))
    return found


def _growth(folder: Folder, found: Sequence[Curve], name: str, title: str, x_label: str, y_label: str) -> Picture:
    values = [value for curve in found for _, value in curve.points]
    legend = f"{subtitle(folder)} {_reach(folder, values).capitalize()}"
    shown = [record for record in folder.records if record.row in {curve.row for curve in found}]
    caption = f"{y_label}, by {x_label}.{_absent(folder.records, shown)}"
    return _picture(name, title, caption, curves.draw(found, x_label, y_label, title, legend))


def _no_growth(records: Sequence[Record]) -> str:
    reasons = dict.fromkeys(gap.note for record in records if (gap := POINTS.gap(record)) is not None)
    return "; ".join(reasons) or "no row was measured with two sizes of it; codellm bench --growth does so"
