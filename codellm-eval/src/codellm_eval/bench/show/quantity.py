"""The figures of a record as quantities whose names hold their protocol: of one name, two are comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import MEGA
from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.repeats import Repeats


@attrs.frozen(kw_only=True)
class Quantity:
    """A figure with its repeats; one that is measured once has one."""

    name: str
    unit: str
    """Of `repeats`: what programs are told."""
    repeats: Repeats
    reach: float | None
    """The spread of the repeats; 0 where every run gives the same; None where it was measured once."""
    texts: Sequence[Scored] = ()
    """The texts that it adds up, by which two are compared."""
    verdicts: Mapping[str, bool] = attrs.field(factory=dict)
    """The tasks that it counts, likewise."""
    shown: tuple[str, float] = ("", 1.0)
    """For people: the unit, and what `repeats` are multiplied by for it."""

    @property
    def value(self) -> float:
        """The figure."""
        return self.repeats.median


RATE = ("tok/s", 1.0)
SECONDS = ("s", 1.0)
MILLISECONDS = ("ms", 1e3)
MEGABYTES = ("MB", 1 / MEGA)


def quantities(record: Record) -> dict[str, Quantity]:
    """Every figure that `record` has, by its name."""
    return {each.name: each for each in [*_speed(record), *_memory(record), *_quality(record)]}


def _speed(record: Record) -> Iterator[Quantity]:
    plan = record.plan
    if plan is None:
        return
    prompt, decode = plan.titles
    request = plan.request
    of = f" {request}" if plan.task else ""
    for name, unit, repeats, shown in (
        (f"{prompt}{of}", "tokens/s", record.prefill, RATE),
        (f"{decode}{of}", "tokens/s", record.decode, RATE),
        (f"TTFT {request}", "s", record.ttft, MILLISECONDS),
        (f"TPOT {request}", "s", record.tpot, MILLISECONDS),
        (f"request {request}", "s", record.request, SECONDS),
        (f"ITL p50 {request}", "s", record.itl_p50, MILLISECONDS),
        (f"ITL p95 {request}", "s", record.itl_p95, MILLISECONDS),
        *((_name(point.workload), "tokens/s", point.rate, RATE) for point in record.points),
    ):
        if repeats is not None:
            reach = repeats.spread if len(repeats.values) > 1 else None
            yield Quantity(name=name, unit=unit, repeats=repeats, reach=reach, shown=shown)
    if record.joules_per_token is not None:
        energy = record.joules_per_token
        yield Quantity(
            name=f"energy by {record.energy_source}",
            unit="J/token",
            repeats=energy,
            reach=energy.spread,
            shown=("J/token", 1.0),
        )
    if record.load_seconds is not None:
        yield Quantity(name="load", unit="s", repeats=Repeats((record.load_seconds,)), reach=None, shown=SECONDS)


def _memory(record: Record) -> Iterator[Quantity]:
    for name, value, reach in (
        ("size", record.info.weight_bytes if record.info else None, 0.0),
        ("host peak", record.host_peak, None),
        ("private peak", record.anonymous_peak, None),
        ("mapped peak", record.file_peak, None),
        ("device peak", record.device_peak, None),
    ):
        if value:
            yield Quantity(name=name, unit="bytes", repeats=Repeats((float(value),)), reach=reach, shown=MEGABYTES)


def _quality(record: Record) -> Iterator[Quantity]:
    bits = ("", 1.0)
    if record.bits_per_byte is not None:
        yield Quantity(
            name=f"bits/byte of {record.scored_bytes} bytes, {record.reading or 'document'}",
            unit="bits/byte",
            repeats=Repeats((record.bits_per_byte,)),
            reach=None,
            texts=record.documents,
            shown=bits,
        )
    if record.canonical_bits_per_byte is not None:
        yield Quantity(
            name=f"canonical bits/byte of {len(record.canonical)} tasks",
            unit="bits/byte",
            repeats=Repeats((record.canonical_bits_per_byte,)),
            reach=None,
            texts=record.canonical,
            shown=bits,
        )
    if record.pass_at_1 is not None:
        yield Quantity(
            name=f"pass@1 of {record.tasks} tasks",
            unit="share",
            repeats=Repeats((record.pass_at_1,)),
            reach=None,
            verdicts=record.verdicts,
            shown=("%", 100.0),
        )


def _name(workload: Workload) -> str:
    """Name as llama-bench writes it; one sequence without context says so, beside the plan's own pp and tg."""
    return str(workload) if workload.context or workload.batch_size > 1 else f"{workload} b1"
