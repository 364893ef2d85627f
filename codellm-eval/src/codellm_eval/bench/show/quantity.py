"""The figures of a record as quantities whose names hold their protocol: of one name, two are comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from codellm_eval.bench.records import figures
from codellm_eval.bench.records.figure import Figure, Kind, Unit
from codellm_eval.bench.records.record import Record
from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.repeats import Repeats

KINDS: tuple[Kind, ...] = ("speed", "growth", "energy", "row", "model", "memory", "quality")
"""The order in which they are compared."""


@attrs.frozen(kw_only=True)
class Quantity:
    """A figure with its repeats; one that is measured once has one."""

    name: str
    unit: Unit
    repeats: Repeats
    reach: float | None
    """The spread of the repeats; 0 where every run gives the same; None where it was measured once."""
    texts: Sequence[Scored]
    """The texts that it adds up, by which two are compared."""
    verdicts: Mapping[str, bool]
    """The tasks that it counts, likewise."""
    in_report: bool
    """Whether the report tells its ratio to the reference row's."""

    @property
    def value(self) -> float:
        """The figure."""
        return self.repeats.median


def quantities(record: Record) -> dict[str, Quantity]:
    """Every figure that `record` has and that can be compared, by its name."""
    kinds = sorted([*figures.FIGURES, *figures.of_workloads(record)], key=lambda figure: KINDS.index(figure.kind))
    return {each.name: each for figure in kinds for each in _quantity(figure, record)}


def _quantity(figure: Figure, record: Record) -> Iterator[Quantity]:
    compared, value = figure.compared, figure.shown(record)
    name = None if compared is None or value is None else compared.name(record)
    if compared is None or name is None:
        return
    if isinstance(value, Repeats):
        repeats, reach = value, value.spread if len(value.values) > 1 else None
    elif isinstance(value, int | float):
        repeats, reach = Repeats((float(value),)), 0.0 if compared.exact else None
    else:
        return
    yield Quantity(
        name=name,
        unit=figure.unit,
        repeats=repeats,
        reach=reach,
        texts=compared.texts(record),
        verdicts=compared.verdicts(record),
        in_report=compared.in_report,
    )
