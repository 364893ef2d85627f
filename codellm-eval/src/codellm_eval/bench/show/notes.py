"""What stands under the table: why cells are empty, and how the figures were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from codellm_eval.bench.ask.job import QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records import figures
from codellm_eval.bench.records.checks import doubts
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import DOUBT, NOISE
from codellm_eval.stats.paired import LEAST_PASSED, LEAST_UNITS, LEVEL, RESAMPLES
from codellm_eval.stats.repeats import Repeats

SPREAD = 0.25
"""The spread from which a figure is not worth comparing: schemes often differ by less."""


def notes(records: Sequence[Record], plan: Plan, quality: QualityPlan | None) -> list[str]:
    """The notes, what went wrong first."""
    return [
        *_failures(records),
        *_doubts(records),
        *_gaps(records),
        *_cached(records),
        *_disturbed(records),
        *_fitted(records, plan),
        *_protocol(records, plan, quality),
    ]


def _failures(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        if record.error is not None:
            yield f"{record.row} failed: {record.error}"


def _doubts(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        for doubt in doubts(record):
            yield f"{DOUBT} {record.row}: {doubt.text}"


def _gaps(records: Sequence[Record]) -> Iterator[str]:
    """Reasons, each once, with the columns and the rows that it holds for."""
    names = {figure.field: figure.missing for figure in figures.FIGURES if figure.missing is not None}
    reasons: dict[str, tuple[list[str], list[str]]] = {}
    for record in records:
        for column, gap in record.gaps.items():
            columns, rows = reasons.setdefault(gap.note, ([], []))
            columns.extend(name for name in [names.get(column, column)] if name not in columns)
            rows.extend(name for name in [str(record.row)] if name not in rows)
    worked = sum(record.error is None for record in records)
    for note, (columns, rows) in reasons.items():
        where = "" if len(rows) == worked else f" ({', '.join(rows)})"
        yield f"{', '.join(columns)}{where}: {note}"


def _cached(records: Sequence[Record]) -> Iterator[str]:
    over = [str(record.row) for record in records if (record.limit_share or 0) > 1]
    if over:
        yield f"limit above 100 % ({', '.join(over)}): the weights are read from a cache, faster than memory"


def _disturbed(records: Sequence[Record]) -> Iterator[str]:
    noisy = [
        str(record.row)
        for record in records
        for repeats in [[figure.value(record) for figure in figures.FIGURES if figure.watched]]
        if any(isinstance(each, Repeats) and each.spread > SPREAD for each in repeats)
    ]
    if noisy:
        yield (
            f"repeats differ by more than {100 * SPREAD:.0f} % ({', '.join(noisy)}): something else used the machine; "
            "measure again when it is idle"
        )


def _fitted(records: Sequence[Record], plan: Plan) -> Iterator[str]:
    for record in records:
        own = record.plan
        if own is None or record.info is None:
            continue
        context = f"{record.row}: its context is {record.info.context_length}"
        if own.protocol != plan.protocol:
            yield (
                f"{context}, so it measured pp{own.prompt_tokens}, tg{own.new_tokens} and a request of "
                f"{own.request_tokens}+{own.new_tokens} tokens"
            )
        left_out = [str(each) for each in plan.workloads if each not in own.workloads]
        if left_out:
            yield f"{context}, too short for {', '.join(left_out)}"


def _protocol(records: Sequence[Record], plan: Plan, quality: QualityPlan | None) -> Iterator[str]:
    yield plan.describe() + "."
    measured = {
        f"{record.info.backend} on {record.info.device}": record.bandwidth
        for record in records
        if record.info is not None and record.bandwidth is not None
    }
    limits = ", ".join(f"{name} {value / 1e9:.1f} GB/s" for name, value in measured.items())
    yield (
        "limit: size x tg rate / the measured bandwidth of memory"
        + (f" ({limits})" if limits else "")
        + "; peak: of the row's own process from its start to the end of pp, tg and the request (of device memory "
        "where there is some); MB: 10^6 bytes."
    )
    sources = dict.fromkeys(record.energy_source for record in records if record.energy_source)
    if sources:
        yield (
            f"energy: what {', '.join(map(str, sources))} counted over tg, for each token; the idle share and whatever "
            "else ran there are in it; median of 3 windows of a second or more."
        )
    if any(record.points for record in records):
        yield (
            "further workloads, as llama-bench names them: d: tokens of context before the measured ones; batch: "
            "sequences together, from when all have their first token to the last token of all."
        )
    if any(record.anonymous_peak is not None for record in records):
        yield (
            "private: memory of the process alone; mapped: pages of files, which the system may drop; seen every "
            "50 ms, so a shorter peak of one of them is missed; host counts both and misses none."
        )
    if quality is not None:
        yield from _quality(records, quality)


def _quality(records: Sequence[Record], quality: QualityPlan) -> Iterator[str]:
    readings = dict.fromkeys(record.reading for record in records if record.reading)
    if readings:
        scored = max(record.scored_bytes or 0 for record in records)
        documents = max(record.scored_documents or 0 for record in records)
        yield (
            f"bits/byte ({' / '.join(readings)}): {scored} bytes of the held-out corpus, {documents} documents each by "
            "itself; perplexity: of a token of the same, so models with other tokenizers do not compare."
        )
    if any(record.canonical for record in records):
        yield from _canonical(records)
    compared = [record.divergence.tokens for record in records if record.divergence is not None]
    if compared:
        yield (
            f"KL: of the whole distribution from the reference row's, mean of the first {max(compared)} tokens of that "
            "text; top-1: of them, with one likeliest token."
        )
    tasks = max((record.tasks or 0 for record in records), default=0)
    if tasks:
        levels = ", ".join(sorted({record.isolation for record in records if record.isolation}))
        judged = f"; programs ran at isolation level {levels}" if levels else ""
        yield f"pass@1: HumanEval, {tasks} tasks, greedy, at most {quality.max_tokens} tokens each{judged}."
    if any(record.against is not None for record in records):
        yield from _differences(records)


def _canonical(records: Sequence[Record]) -> Iterator[str]:
    asked = max(record.canonical_asked or 0 for record in records)
    yield (
        f"canonical: HumanEval's {asked} canonical solutions after their prompts, -log2 of their probability / their "
        "bytes; greedy: of their tokens, with one likeliest token as in the reference row, the solution given so far."
    )
    for record in records:
        if record.canonical and len(record.canonical) < (record.canonical_asked or 0):
            yield (
                f"{record.row}: {len(record.canonical)} of {record.canonical_asked} canonical solutions fit its context"
            )


def _differences(records: Sequence[Record]) -> Iterator[str]:
    reference = next(record.against.reference for record in records if record.against is not None)
    yield (
        f"{NOISE} not told apart from {reference}. Ranges: where the difference lies by {100 * LEVEL:.0f} %, paired by "
        f"document or task (expanded percentile bootstrap, {RESAMPLES} resamples, none of fewer than {LEAST_UNITS}); a "
        f"difference is told where its range leaves 0 out. pass@1: McNemar's exact test at {100 * (1 - LEVEL):.0f} %, "
        f"asked only where one of the two rows solves {LEAST_PASSED} tasks; +gained -lost."
    )
