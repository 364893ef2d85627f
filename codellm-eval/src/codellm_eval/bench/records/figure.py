"""Declaration of a figure of a row: where it comes from, how people and programs see it, how a gap is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records.against import Against
from codellm_eval.bench.records.record import Gap, Record
from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.differences import Difference, Solved
from codellm_eval.stats.repeats import Repeats

Value = Repeats | float | str | tuple[object, ...] | None
Kind = Literal["model", "speed", "memory", "quality", "energy", "growth", "row"]
"""What a figure is of: programs are told all of one kind together, and so is a comparison."""
Table = Literal["first", "quality", "tokens", "latency"]
"""Where people find a figure: `show.table` says what each of the tables is called."""


def _itself(value: float) -> float:
    return value


@attrs.frozen
class Unit:
    """Unit of a figure, `name` for programs and `shown` for people."""

    name: str
    shown: str
    of: Callable[[float], float] = _itself
    """From the one to the other."""


@attrs.frozen(kw_only=True)
class Compared:
    """Name and nature of a figure that is set beside that of another results folder."""

    name: Callable[[Record], str | None]
    """With its protocol, so that two of one name are comparable; None where the protocol is not known."""
    exact: bool = False
    """Whether every run gives the same, though it is measured once."""
    texts: Callable[[Record], Sequence[Scored]] = lambda _: ()
    """The texts that it adds up, by which two are compared."""
    verdicts: Callable[[Record], Mapping[str, bool]] = lambda _: {}
    """The tasks that it counts, likewise."""
    in_report: bool = False
    """Whether the report tells its ratio to the reference row's: of all of them there would be too many columns."""


@attrs.frozen(kw_only=True)
class Figure:
    """Entry of `figures.FIGURES`: where it comes from, then how people are told it, then programs and the others.

    What it leaves out is not told: without a `table` people do not see it, without `programs` programs do not, without
    `compared` no comparison does, and without `missing` a fault leaves no reason.
    """

    kind: Kind
    field: str
    """The field of Record that it comes from. Where that is empty, `Record.gaps` has the reason under this name."""
    of: Callable[[Record], Value] | None = None
    """How it is computed where it is not the field itself; None where the row has none."""
    repeated: bool = False
    """Whether it is measured several times: a Repeats."""
    watched: bool = False
    """Whether repeats that differ widely, or drift, speak against the row."""
    unit: Unit = Unit("", "")

    key: str = ""
    """Of its column in `table`."""
    table: Table | None = None
    title: str | Callable[[Plan], str] = ""
    under: str | None = None
    """The second line of the column's head, where that is not the unit."""
    asked: Callable[[Plan], bool] = lambda _: True
    """Whether the column is there."""
    digits: str = ""
    """Its format, as `.3f`; of none, three significant digits."""
    out_of: Callable[[Record], int | None] | None = None
    """What it is a part of."""
    sequences: int = 1
    """Those that share it: what each has is told too."""
    difference: Callable[[Against], Difference | Solved | None] | None = None
    """From the reference row's, by which a figure that could as well be that one is marked."""
    differing: bool = False
    """Whether that difference is told under the figure."""

    programs: str | None = None
    """Its key for programs, which says the unit."""
    compared: Compared | None = None
    missing: str | None = None
    """What the notes call it when they tell why it is empty. Of the figures of one field one has it."""
    reason: str | None = None
    """The key of that reason for programs, where it is not `field` with `_reason`."""

    def value(self, record: Record) -> Value:
        """Give it in `unit.name`; None where the row has none."""
        found: Value = getattr(record, self.field) if self.of is None else self.of(record)
        return found

    def shown(self, record: Record) -> Value:
        """Give it for people and comparisons, likewise in `unit.name`: no bytes are none."""
        value = self.value(record)
        return None if self.unit.name == "bytes" and not value else value

    def gap(self, record: Record) -> Gap | None:
        """Reason why the row has none, where that is known."""
        return record.gaps.get(self.field)

    def head(self, plan: Plan) -> tuple[str, str]:
        """Two lines over its column."""
        title = self.title if isinstance(self.title, str) else self.title(plan)
        return title, self.unit.shown if self.under is None else self.under
