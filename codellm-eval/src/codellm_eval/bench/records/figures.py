"""Figures of a row, each declared once.

Tables, notes, CSV, comparison, report and what a fault leaves out walk `FIGURES`: a new figure is its field of Record
and its entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.against import Against
from codellm_eval.bench.records.figure import Compared, Figure, Kind, Unit, Value
from codellm_eval.bench.records.record import Record
from codellm_eval.stats.differences import Difference
from codellm_eval.stats.repeats import Repeats

Part = TypeVar("Part")
MEGA = 1e6
RATE = Unit("tokens/s", "tok/s")
SECONDS = Unit("s", "s")
MILLISECONDS = Unit("s", "ms", lambda value: 1000 * value)
MEGABYTES = Unit("bytes", "MB", lambda value: value / MEGA)
SHARE = Unit("share", "%", lambda value: 100 * value)
SAME = Unit("share", "same %", lambda value: 100 * value)
BITS_PER_BYTE = Unit("bits/byte", "")


def _planned(name: Callable[[Plan], str], *, in_report: bool = False) -> Compared:
    """Comparison under a name that the plan makes."""
    return Compared(name=lambda record: name(record.plan) if record.plan else None, in_report=in_report)


def _named(name: str, *, exact: bool = False, in_report: bool = False) -> Compared:
    return Compared(name=lambda _: name, exact=exact, in_report=in_report)


def _of_request(plan: Plan) -> str:
    """Request of a task, whose speeds are not llama-bench's figures."""
    return f" {plan.request}" if plan.task else ""


def _value(kind: Kind, field: str, programs: str, of: Callable[[Record], Value] | None = None) -> Figure:
    """Value that only programs are told."""
    return Figure(kind=kind, field=field, programs=programs, of=of)


def _plan(programs: str, of: Callable[[Plan], Value]) -> Figure:
    return _value("speed", "plan", programs, lambda record: of(record.plan) if record.plan else None)


def _why(kind: Kind, field: str, missing: str, reason: str | None = None) -> Figure:
    """Reason why the figures of one field are empty."""
    return Figure(kind=kind, field=field, missing=missing, reason=reason)


def _parts(
    programs: str, of: Callable[[Against], Part | None], **parts: Callable[[Part], float | None]
) -> tuple[Figure, ...]:
    """Parts of a difference from the reference row, under keys that begin with `programs`."""

    def value(get: Callable[[Part], float | None]) -> Callable[[Record], float | None]:
        def found(record: Record) -> float | None:
            whole = of(record.against) if record.against else None
            return None if whole is None else get(whole)

        return found

    return tuple(_value("quality", "against", f"{programs}_{name}", value(get)) for name, get in parts.items())


def _difference(programs: str, of: Callable[[Against], Difference | None]) -> tuple[Figure, ...]:
    """Difference from the reference row, and its interval."""
    return _parts(
        programs,
        of,
        difference=lambda found: found.value,
        difference_low=lambda found: found.interval.low if found.interval else None,
        difference_high=lambda found: found.interval.high if found.interval else None,
    )


def _log_probability(record: Record) -> float | None:
    """Log-probability of the canonical solutions together, in nats."""
    return -math.fsum(task.nll for task in record.canonical) if record.canonical else None


WEIGHTS = Figure(
    kind="model", field="info", of=lambda record: record.info.weight_bytes if record.info else None, unit=MEGABYTES,
    key="weights", table="first", title="size", programs="weight_bytes",
    compared=_named("size", exact=True, in_report=True),
)  # fmt: skip
PREFILL = Figure(
    kind="speed", field="prefill", repeated=True, watched=True, unit=RATE,
    key="pp", table="first", title=lambda plan: plan.titles[0], programs="pp_tokens_per_second",
    compared=_planned(lambda plan: plan.titles[0] + _of_request(plan), in_report=True),
)  # fmt: skip
DECODE = Figure(
    kind="speed", field="decode", repeated=True, watched=True, unit=RATE,
    key="tg", table="first", title=lambda plan: plan.titles[1], programs="tg_tokens_per_second",
    compared=_planned(lambda plan: plan.titles[1] + _of_request(plan), in_report=True),
)  # fmt: skip
# whole seconds are for people who wait: of a request as short as the usual one they say nothing that TTFT does not
TTFT = Figure(
    kind="speed", field="ttft", repeated=True, watched=True, unit=MILLISECONDS,
    key="ttft", table="first", title="TTFT", asked=lambda plan: plan.task is None, programs="ttft_seconds",
    compared=_planned(lambda plan: f"TTFT {plan.request}", in_report=True),
)  # fmt: skip
TPOT = Figure(
    kind="speed", field="tpot", repeated=True, watched=True, unit=MILLISECONDS,
    key="tpot", table="first", title="TPOT", asked=lambda plan: plan.task is None, programs="tpot_seconds",
    compared=_planned(lambda plan: f"TPOT {plan.request}", in_report=True),
)  # fmt: skip
REQUEST = Figure(
    kind="speed", field="request", repeated=True, unit=SECONDS,
    key="request", table="first", title="request", asked=lambda plan: plan.task is not None, programs="request_seconds",
    compared=_planned(lambda plan: f"request {plan.request}", in_report=True),
)  # fmt: skip
BITS = Figure(
    kind="quality", field="bits_per_byte", unit=BITS_PER_BYTE,
    key="document", table="quality", title="document", under="bits/byte", digits=".3f",
    difference=lambda against: against.bits, differing=True, programs="bits_per_byte",
    compared=Compared(
        name=lambda record: f"bits/byte of {record.scored_bytes} bytes, {record.reading or 'document'}",
        texts=lambda record: record.documents,
    ),
)  # fmt: skip
PEAK = Figure(
    # of the memory that holds the weights: the device's where the row has one, else the host's
    kind="memory", field="host_peak", of=lambda record: record.device_peak or record.host_peak, unit=MEGABYTES,
    key="peak", table="first", title="peak",
)  # fmt: skip
POINTS = Figure(
    kind="growth", field="points", of=lambda record: None if record.missing_workloads else record.points,
    missing="further workloads",
)  # fmt: skip
"""The figures of further workloads are `of_workloads`: which there are is the plan's."""

FIGURES: tuple[Figure, ...] = (
    WEIGHTS,
    _plan("protocol", lambda plan: plan.protocol),
    _plan("repeats", lambda plan: plan.repeats),
    _plan("pp_tokens", lambda plan: plan.prompt_tokens),
    PREFILL,
    _plan("tg_tokens", lambda plan: plan.new_tokens),
    DECODE,
    _plan("request_prompt_tokens", lambda plan: plan.request_tokens),
    _plan("request_new_tokens", lambda plan: plan.new_tokens),
    TTFT,
    TPOT,
    REQUEST,
    Figure(
        kind="speed", field="itl_p50", repeated=True, unit=MILLISECONDS,
        key="itl_p50", table="latency", title="ITL p50", programs="itl_p50_seconds",
        compared=_planned(lambda plan: f"ITL p50 {plan.request}"),
    ),
    Figure(
        kind="speed", field="itl_p95", repeated=True, unit=MILLISECONDS,
        key="itl_p95", table="latency", title="ITL p95", programs="itl_p95_seconds",
        compared=_planned(lambda plan: f"ITL p95 {plan.request}"),
    ),
    Figure(kind="speed", field="repeated_prompt", repeated=True, programs="repeated_prompt_share"),
    Figure(kind="speed", field="first_share", repeated=True, programs="first_token_share"),
    _value("speed", "clock_resolution", "clock_resolution_seconds"),
    Figure(
        kind="row", field="load_seconds", unit=SECONDS,
        key="load", table="latency", title="load", programs="load_seconds",
        compared=_planned(lambda _: "load"),
    ),
    _value("quality", "against", "reference", lambda record: str(record.against.reference) if record.against else None),
    BITS,
    *_difference("bits_per_byte", lambda against: against.bits),
    Figure(
        kind="quality", field="bits_per_byte", of=lambda record: record.perplexity,
        key="perplexity", table="tokens", title="document", under="perplexity", digits=".3f",
        difference=lambda against: against.bits, programs="perplexity",
    ),
    _value("quality", "reading", "bits_per_byte_protocol"),
    _value("quality", "scored_bytes", "scored_bytes"),
    _why("quality", "bits_per_byte", "bits/byte"),
    Figure(
        kind="quality", field="canonical", of=lambda record: record.canonical_bits_per_byte, unit=BITS_PER_BYTE,
        key="canonical", table="quality", title="canonical", under="bits/byte", digits=".3f",
        difference=lambda against: against.canonical, differing=True, programs="canonical_bits_per_byte",
        compared=Compared(
            name=lambda record: f"canonical bits/byte of {len(record.canonical)} tasks",
            texts=lambda record: record.canonical,
        ),
    ),
    *_difference("canonical_bits_per_byte", lambda against: against.canonical),
    _value("quality", "canonical", "canonical_nats",
           lambda record: sum(task.nll for task in record.canonical) if record.canonical else None),
    Figure(
        kind="quality", field="canonical", of=_log_probability,
        key="log_probability", table="tokens", title="canonical", under="ln p, nats", digits=".1f",
        difference=lambda against: against.canonical,
    ),
    _value("quality", "canonical", "canonical_tokens",
           lambda record: sum(task.tokens for task in record.canonical) if record.canonical else None),
    _value("quality", "canonical", "canonical_tasks", lambda record: len(record.canonical) or None),
    Figure(
        kind="quality", field="canonical", of=lambda record: record.greedy_agreement, unit=SAME,
        key="greedy", table="quality", title="greedy", digits=".1f", programs="greedy_agreement",
    ),
    _why("quality", "canonical", "canonical"),
    Figure(
        kind="quality", field="divergence",
        of=lambda record: record.divergence.kl if record.divergence else None, unit=Unit("nats", "nats"),
        key="kl", table="quality", title="KL", digits=".2g", programs="kl_divergence_nats",
    ),
    Figure(
        kind="quality", field="divergence",
        of=lambda record: record.divergence.top1 if record.divergence else None, unit=SAME,
        key="top1", table="quality", title="top-1", digits=".1f", programs="top1_agreement",
    ),
    _value("quality", "divergence", "divergence_tokens",
           lambda record: record.divergence.tokens if record.divergence else None),
    _why("quality", "divergence", "KL, top-1"),
    _value("speed", "bandwidth", "bandwidth_bytes_per_second"),
    Figure(
        kind="speed", field="bandwidth", of=lambda record: record.limit_share, unit=SHARE,
        key="limit", table="first", title="limit", digits=".1f", programs="limit_share",
    ),
    _why("speed", "bandwidth", "limit", reason="limit_reason"),
    PEAK,
    Figure(
        kind="memory", field="host_peak", unit=MEGABYTES,
        key="host", table="latency", title="host", programs="peak_host_bytes",
        compared=_named("host peak", in_report=True),
    ),
    Figure(
        kind="memory", field="anonymous_peak", unit=MEGABYTES,
        key="anonymous", table="latency", title="private", programs="peak_anonymous_bytes",
        compared=_named("private peak"),
    ),
    Figure(
        kind="memory", field="file_peak", unit=MEGABYTES,
        key="file", table="latency", title="mapped", programs="peak_file_bytes",
        compared=_named("mapped peak"),
    ),
    Figure(
        kind="memory", field="device_peak", unit=MEGABYTES,
        key="device", table="latency", title="device", programs="peak_device_bytes",
        compared=_named("device peak", in_report=True),
    ),
    Figure(
        kind="quality", field="bits_per_byte", unit=BITS_PER_BYTE,
        key="bits", table="first", title="bits/", under="byte", digits=".3f",
        difference=lambda against: against.bits,
    ),
    Figure(
        kind="quality", field="pass_at_1", unit=SHARE,
        key="pass", table="first", title="pass@1", digits=".1f",
        difference=lambda against: against.solved, programs="pass_at_1",
        compared=Compared(
            name=lambda record: f"pass@1 of {record.tasks} tasks", verdicts=lambda record: record.verdicts
        ),
        missing="pass@1",
    ),
    _value("quality", "isolation", "isolation"),
    Figure(
        kind="quality", field="pass_at_1", of=lambda record: record.passed, out_of=lambda record: record.tasks,
        key="solved", table="quality", title="pass@1", under="tasks", digits="d",
        difference=lambda against: against.solved, differing=True, programs="passed",
    ),
    _value("quality", "tasks", "tasks"),
    *_parts(
        "pass_at_1", lambda against: against.solved,
        gained=lambda solved: solved.gained, lost=lambda solved: solved.lost,
        probability=lambda solved: solved.probability,
    ),
    Figure(
        kind="energy", field="joules_per_token", repeated=True, unit=Unit("J/token", "J/token"),
        key="energy", table="latency", title="energy", programs="joules_per_token",
        compared=Compared(name=lambda record: f"energy by {record.energy_source}" if record.plan else None),
    ),
    _value("energy", "energy_source", "energy_source"),
    _why("energy", "joules_per_token", "energy"),
    POINTS,
    _value("row", "seconds", "row_seconds"),
)  # fmt: skip
"""In the order of the tables' columns, and in that in which a fault's gaps are told."""


def of_workloads(record: Record) -> Iterator[Figure]:
    """Figures of the further workloads: of those that are missing, then of those that were measured."""
    yield from map(_of_workload, record.missing_workloads)
    yield from (_of_workload(point.workload) for point in record.points)


def _of_workload(workload: Workload) -> Figure:
    # as llama-bench writes it; one sequence without context says so, beside the plan's own pp and tg
    name = str(workload) if workload.context or workload.batch_size > 1 else f"{workload} b1"

    def rate(record: Record) -> Repeats | None:
        return next((point.rate for point in reversed(record.points) if point.workload == workload), None)

    return Figure(
        kind="growth", field="points", of=rate, repeated=True, unit=RATE, sequences=workload.batch_size,
        key=workload.key, programs=f"{workload.key}_tokens_per_second", compared=_planned(lambda _: name),
    )  # fmt: skip
