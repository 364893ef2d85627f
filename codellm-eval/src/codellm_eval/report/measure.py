"""What a picture's axis shows of each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records.figures import MEGA, PEAK
from codellm_eval.bench.records.record import Record
from codellm_eval.stats.repeats import Repeats

GIGA = 1e9
MANY = 1e10
"""Bytes from which a picture counts in GB."""


LEAST, MOST = 1e-12, 1e15
"""Figures beyond these are none that a machine gave, and an axis cannot hold them."""


@attrs.frozen
class Interval:
    """A figure and how far it may reach: the least and the greatest repeat; itself where it has none."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, repeats: Repeats | None) -> Interval | None:
        """The median and all repeats; None where there are none that can be drawn."""
        if repeats is None or not all(LEAST < value < MOST for value in repeats.values):
            return None
        return cls(repeats.median, min(repeats.values), max(repeats.values))

    @classmethod
    def exact(cls, value: float | None) -> Interval | None:
        """A figure without repeats; None where there is none that can be drawn."""
        return cls(value, value, value) if value is not None and LEAST < value < MOST else None


@attrs.frozen(kw_only=True)
class Measure:
    """An axis: `label` with its unit, whether `less` is better, and a row's value (None: it has none)."""

    label: str
    less: bool
    of: Callable[[Record], Interval | None]


def speed(plan: Plan) -> Measure:
    """Tokens per second while one sequence is decoded."""
    return Measure(
        label=f"tg{plan.new_tokens}, tokens/s (more is better)",
        less=False,
        of=lambda record: Interval.of(record.decode),
    )


def memory(records: Sequence[Record]) -> Measure:
    """Bytes at the peak, in the unit that suits the largest."""
    largest = max(map(_peak, records), default=0)
    unit, name = (GIGA, "GB") if largest >= MANY else (MEGA, "MB")
    return Measure(
        label=f"peak memory, {name} (less is better)",
        less=True,
        of=lambda record: Interval.exact(_peak(record) / unit),
    )


def _peak(record: Record) -> float:
    """Peak in bytes; 0 where it is not known."""
    value = PEAK.value(record)
    return value if isinstance(value, int | float) else 0


def quality() -> Measure:
    """Bits per byte of held-out text; its reach is that of the paired difference from the reference row."""
    return Measure(label="bits per byte (less is better)", less=True, of=_bits)


def _bits(record: Record) -> Interval | None:
    found = Interval.exact(record.bits_per_byte)
    difference = record.against.bits if record.against else None
    if found is None or difference is None or difference.interval is None:
        return found
    base = found.middle - difference.value  # the reference row's, over the same documents
    low, high = base + difference.interval.low, base + difference.interval.high
    return attrs.evolve(found, low=min(low, found.middle), high=max(high, found.middle))
