"""One record as the flat row of a table: rounded and with spreads for people, complete and in SI units for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from codellm_eval.bench.records.checks import doubts
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.record import Record
from codellm_eval.stats.differences import Difference, Solved
from codellm_eval.stats.repeats import Repeats

MEGA = 1e6
DOUBT = "!"
"""Before a figure that the row's own measurements speak against."""
NOISE = "≈"
"""Before a figure that is not told apart from the reference row's."""
MEASURED_ONCE = "once"
"""Where a spread would stand."""


def significant(value: float) -> str:
    """A positive figure with three digits, or all of those before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def plus_minus(repeats: Repeats) -> str:
    """The spread: ± a share of the median in percent; a single measurement tells none."""
    if len(repeats.values) == 1:
        return MEASURED_ONCE
    share = 100 * repeats.spread
    return f"±{share:.0f}%" if share >= 1 else f"±{share:.1f}%"


def peak(record: Record) -> int | None:
    """Bytes at the peak, of the memory that holds the weights: the device's where the row has one, else the host's."""
    return record.device_peak or record.host_peak


def marked(figure: str, difference: Difference | Solved | None) -> str:
    """A figure that could as well be the reference row's has a NOISE before it."""
    return figure if difference is None or difference.told_apart else NOISE + figure


def show_interval(difference: Difference | None) -> str:
    """Where the difference from the reference row lies."""
    if difference is None or difference.interval is None:
        return ""
    ends = difference.interval.low, difference.interval.high
    digits = 3 if max(map(abs, ends)) >= 0.01 else 4
    # without the zero before the point, for which 80 columns have no room
    return "…".join(re.sub(r"^([+-])0\.", r"\1.", f"{end:+.{digits}f}") for end in ends)


def show_point(point: Point) -> tuple[str, str]:
    """The rate of all sequences together; beside its spread that of each, where they are several."""
    rate, size = point.rate, point.workload.batch_size
    each = f"\n{significant(rate.median / size)} each" if size > 1 else ""
    return significant(rate.median), plus_minus(rate) + each


def for_people(record: Record) -> dict[str, tuple[str, str]]:
    """Texts of each figure and its spread (empty where it has none)."""

    def show(column: str, value: float | None, form: Callable[[float], str]) -> tuple[str, str]:
        if value is not None:
            return form(value), ""
        gap = record.gaps.get(column)
        return (gap.cell if gap else "-"), ""

    def show_repeats(repeats: Repeats | None, factor: float = 1) -> tuple[str, str]:
        if repeats is None:
            return "-", ""
        return significant(factor * repeats.median), plus_minus(repeats)

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    def bits(value: float) -> str:
        return marked(f"{value:.3f}", record.against.bits if record.against else None)

    def passing(value: float) -> str:
        return marked(percent(value), record.against.solved if record.against else None)

    def show_bytes(column: str, value: int | None) -> tuple[str, str]:
        return show(column, value / MEGA if value else None, significant)

    shown = {
        "weights": show_bytes("info", record.info.weight_bytes if record.info else None),
        "pp": show_repeats(record.prefill),
        "tg": show_repeats(record.decode),
        "ttft": show_repeats(record.ttft, 1000),
        "tpot": show_repeats(record.tpot, 1000),
        "request": show_repeats(record.request),
        "limit": show("bandwidth", record.limit_share, percent),
        "peak": show_bytes("host_peak", peak(record)),
        "bits": show("bits_per_byte", record.bits_per_byte, bits),
        "pass": show("pass_at_1", record.pass_at_1, passing),
        **_against(record, show),
        "itl_p50": show_repeats(record.itl_p50, 1000),
        "itl_p95": show_repeats(record.itl_p95, 1000),
        "load": show("load_seconds", record.load_seconds, significant),
        "host": show_bytes("host_peak", record.host_peak),
        "anonymous": show_bytes("anonymous_peak", record.anonymous_peak),
        "file": show_bytes("file_peak", record.file_peak),
        "device": show_bytes("device_peak", record.device_peak),
        "energy": show_repeats(record.joules_per_token)
        if record.joules_per_token
        else show("joules_per_token", None, significant),
        **{each.key: show("points", None, significant) for each in record.missing_workloads},
        **{point.workload.key: show_point(point) for point in record.points},
    }
    for column in {column for doubt in doubts(record) for column in doubt.columns}:
        figure, spread = shown[column]
        shown[column] = DOUBT + figure, spread
    return {**shown, "pp": ("failed", "")} if record.error is not None else shown


def _against(record: Record, show: Callable[..., tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Quality, and how far it is from the reference row's: a figure over what is known of the difference."""
    against = record.against
    bits, canonical, solved = (against.bits, against.canonical, against.solved) if against else (None, None, None)

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    document, _ = show("bits_per_byte", record.bits_per_byte, lambda value: marked(f"{value:.3f}", bits))
    solutions, _ = show("canonical", record.canonical_bits_per_byte, lambda value: marked(f"{value:.3f}", canonical))
    passed, _ = show("pass_at_1", record.passed, lambda value: marked(f"{value}/{record.tasks}", solved))
    divergence = record.divergence
    return {
        "document": (document, show_interval(bits)),
        "canonical": (solutions, show_interval(canonical)),
        "perplexity": show("bits_per_byte", record.perplexity, lambda value: marked(f"{value:.3f}", bits)),
        "log_probability": show("canonical", _log_probability(record), lambda value: marked(f"{value:.1f}", canonical)),
        "greedy": show("canonical", record.greedy_agreement, percent),
        "kl": show("divergence", divergence and divergence.kl, lambda value: f"{value:.2g}"),
        "top1": show("divergence", divergence and divergence.top1, percent),
        "solved": (passed, f"+{solved.gained} -{solved.lost}" if solved else ""),
    }


def _log_probability(record: Record) -> float | None:
    """Log-probability of the canonical solutions together, in nats."""
    return -math.fsum(task.nll for task in record.canonical) if record.canonical else None


def for_programs(record: Record) -> dict[str, Any]:
    """Every figure under a key that says its unit; None where there is none, and why under `…_reason`."""
    info, plan = record.info, record.plan
    values: dict[str, Any] = {
        "row": str(record.row),
        "backend": record.row.backend,
        "scheme": info.scheme if info else record.row.scheme,
        "options": ",".join(f"{key}={value}" for key, value in record.row.options.items()),
        "model": record.model,
        "dummy": info.dummy if info else None,
        "error": record.error,
        "warnings": "; ".join(doubt.text for doubt in doubts(record)) or None,
        "architecture": info.architecture if info else None,
        "parameters": info.parameters if info else None,
        "dtype": info.dtype if info else None,
        "device": info.device if info else None,
        "threads": info.threads if info else None,
        "context_length": info.context_length if info else None,
        "weight_bytes": info.weight_bytes if info else None,
        "protocol": plan.protocol if plan else None,
        "repeats": plan.repeats if plan else None,
        "pp_tokens": plan.prompt_tokens if plan else None,
        **_repeats("pp_tokens_per_second", record.prefill),
        "tg_tokens": plan.new_tokens if plan else None,
        **_repeats("tg_tokens_per_second", record.decode),
        "request_prompt_tokens": plan.request_tokens if plan else None,
        "request_new_tokens": plan.new_tokens if plan else None,
        **_repeats("ttft_seconds", record.ttft),
        **_repeats("tpot_seconds", record.tpot),
        **_repeats("request_seconds", record.request),
        **_repeats("itl_p50_seconds", record.itl_p50),
        **_repeats("itl_p95_seconds", record.itl_p95),
        **_repeats("repeated_prompt_share", record.repeated_prompt),
        **_repeats("first_token_share", record.first_share),
        "clock_resolution_seconds": record.clock_resolution,
        "bandwidth_bytes_per_second": record.bandwidth,
        "limit_share": record.limit_share,
        "limit_reason": _reason(record, "bandwidth"),
        "peak_host_bytes": record.host_peak,
        "peak_anonymous_bytes": record.anonymous_peak,
        "peak_file_bytes": record.file_peak,
        "peak_device_bytes": record.device_peak,
        **_quality(record),
        **_repeats("joules_per_token", record.joules_per_token),
        "energy_source": record.energy_source,
        "joules_per_token_reason": _reason(record, "joules_per_token"),
        "points_reason": _reason(record, "points"),
        "load_seconds": record.load_seconds,
        "row_seconds": record.seconds,
    }
    for workload in record.missing_workloads:
        values |= _repeats(f"{workload.key}_tokens_per_second", None)
    for point in record.points:
        values |= _repeats(f"{point.workload.key}_tokens_per_second", point.rate)
    return values


def _quality(record: Record) -> dict[str, Any]:
    against, divergence, canonical = record.against, record.divergence, record.canonical
    solved = against.solved if against else None
    return {
        "reference": str(against.reference) if against else None,
        "bits_per_byte": record.bits_per_byte,
        **_difference("bits_per_byte", against.bits if against else None),
        "perplexity": record.perplexity,
        "bits_per_byte_protocol": record.reading,
        "scored_bytes": record.scored_bytes,
        "bits_per_byte_reason": _reason(record, "bits_per_byte"),
        "canonical_bits_per_byte": record.canonical_bits_per_byte,
        **_difference("canonical_bits_per_byte", against.canonical if against else None),
        "canonical_nats": sum(task.nll for task in canonical) if canonical else None,
        "canonical_tokens": sum(task.tokens for task in canonical) if canonical else None,
        "canonical_tasks": len(canonical) if canonical else None,
        "greedy_agreement": record.greedy_agreement,
        "canonical_reason": _reason(record, "canonical"),
        "kl_divergence_nats": divergence.kl if divergence else None,
        "top1_agreement": divergence.top1 if divergence else None,
        "divergence_tokens": divergence.tokens if divergence else None,
        "divergence_reason": _reason(record, "divergence"),
        "pass_at_1": record.pass_at_1,
        "pass_at_1_reason": _reason(record, "pass_at_1"),
        "isolation": record.isolation,
        "passed": record.passed,
        "tasks": record.tasks,
        "pass_at_1_gained": solved.gained if solved else None,
        "pass_at_1_lost": solved.lost if solved else None,
        "pass_at_1_probability": solved.probability if solved else None,
    }


def _difference(key: str, difference: Difference | None) -> dict[str, float | None]:
    """Difference from the reference row, with its interval."""
    interval = difference.interval if difference else None
    return {
        f"{key}_difference": difference.value if difference else None,
        f"{key}_difference_low": interval.low if interval else None,
        f"{key}_difference_high": interval.high if interval else None,
    }


def _repeats(key: str, repeats: Repeats | None) -> dict[str, float | None]:
    if repeats is None:
        return {key: None, f"{key}_spread": None}
    return {key: repeats.median, f"{key}_spread": repeats.spread}


def _reason(record: Record, column: str) -> str | None:
    gap = record.gaps.get(column)
    return gap.note if gap else None
