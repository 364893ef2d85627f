"""Workloads beyond a row's own: other sizes, batches, contexts; which load measures which, and what is told when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from codellm.errors import BackendError, CodellmError
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.workload import Kind, Workload
from codellm_eval.bench.measure import clock
from codellm_eval.bench.measure.prompt import RandomPrompts
from codellm_eval.bench.measure.requests import requests
from codellm_eval.bench.process.pipe import Report
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.record import make_converter
from codellm_eval.stats.repeats import Repeats

if TYPE_CHECKING:
    from codellm.model import Model, ModelInfo
    from codellm.spec import LoadSpec


@attrs.frozen
class Growth:
    """What was measured, and why the other workloads have no figure."""

    points: list[Point]
    faults: list[str]


def measure_growth(
    model: Model, workloads: Sequence[Workload], plan: Plan, progress: Callable[[str], None] = lambda phase: None
) -> Growth:
    """Warm-ups that do not count, then the plan's repeats of each of `workloads`, in which they take turns.

    One that gives no rate, as where the model lied about its tokens, is given up and leaves the others alone.

    Raises:
        BackendError: the model runs fewer sequences together than asked.
    """
    most = max((each.batch_size for each in workloads), default=1)
    if model.info.batch_size < most:
        raise BackendError(f"{model.info.backend} runs {model.info.batch_size} sequences together, not {most}")
    prompts, step = RandomPrompts(model.tokenizer, plan.seed), clock.resolution()
    rates: dict[Workload, list[float]] = {each: [] for each in workloads}
    faults: list[str] = []
    for repeat in range(-1, plan.repeats):
        for workload in list(rates) if repeat >= 0 else _warm_ups(workloads):
            progress(f"{workload} {repeat + 1}/{plan.repeats}")
            try:
                tokens, seconds = _measure(model, workload, prompts)
                clock.check(step, [seconds])
                if repeat >= 0:
                    rates[workload].append(tokens / seconds)
            except CodellmError as error:
                faults.append(f"{workload}: {error}")
                rates.pop(workload, None)
    return Growth([Point(workload, Repeats(tuple(values))) for workload, values in rates.items()], faults)


def _warm_ups(workloads: Sequence[Workload]) -> list[Workload]:
    """Shortest workload of each kind and batch size: a prompt of thousands of tokens takes a laptop minutes."""
    shortest: dict[tuple[Kind, int], Workload] = {}
    for each in workloads:
        key = each.kind, each.batch_size
        if key not in shortest or each.context_length < shortest[key].context_length:
            shortest[key] = each
    return list(shortest.values())


def _measure(model: Model, workload: Workload, prompts: RandomPrompts) -> tuple[int, float]:
    """Tokens of all sequences together, and the seconds that they took."""
    if workload.kind == "tg":
        return _decode(model, workload, prompts)
    seconds = _prefill_seconds(model, workload, prompts, workload.context + workload.tokens)
    if workload.context:  # nothing is kept between two requests, so the context itself is computed too
        seconds -= _prefill_seconds(model, workload, prompts, workload.context)
    if seconds <= 0:
        raise BackendError(
            f"a prompt of {workload.context} tokens took as long as one of {workload.tokens} more, from "
            "which no rate can be told; take more --prompt-tokens"
        )
    return workload.batch_size * workload.tokens, seconds


def _prefill_seconds(model: Model, workload: Workload, prompts: RandomPrompts, length: int) -> float:
    """Seconds from the start until every sequence has its first token."""
    drawn = [prompts.draw(length) for _ in range(workload.batch_size)]
    results = requests(model, drawn, 1)
    return max(each.timing.token_times[0] for each in results) - results[0].timing.start


def _decode(model: Model, workload: Workload, prompts: RandomPrompts) -> tuple[int, float]:
    """Seconds from when every sequence has its first token to the last token of all.

    So sequences that a backend runs one after the other are no batch, whatever their own rates are.
    """
    drawn = [prompts.draw(max(1, workload.context)) for _ in range(workload.batch_size)]
    times = [each.timing.token_times for each in requests(model, drawn, workload.tokens)]
    start, end = max(each[0] for each in times), max(each[-1] for each in times)
    if end <= start:
        raise BackendError("all tokens came at once, from which no rate can be told")
    return sum(time > start for each in times for time in each), end - start


@attrs.define
class Points:
    """What is measured of a plan's workloads, told as it comes; a fault leaves the rest of the row."""

    plan: Plan
    report: Report
    _taken: list[Point] = attrs.field(factory=list)
    _faults: list[str] = attrs.field(factory=list)

    def measure(self, model: Model, workloads: Sequence[Workload]) -> None:
        """Measure `workloads` with `model`."""
        if workloads:
            with self.report.gap_on_error("points"):
                found = measure_growth(model, workloads, self.plan, self.report.phase)
                self._taken += found.points
                self._faults += found.faults
                self.report.fields(points=make_converter().unstructure(self._taken))
                if self._faults:
                    self.report.gap("points", "failed", "; ".join(self._faults))

    def measure_together(self, spec: LoadSpec, info: ModelInfo) -> None:
        """Measure the plan's batches on a load of their own, with as many slots as they need.

        Each slot is just long enough: at a model's whole context the keys and values of many would not fit in memory.
        """
        from codellm.loading import open_spec

        workloads = self.plan.together
        if not workloads:
            return
        longest = max(each.context_length for each in workloads)
        wider = attrs.evolve(
            spec,
            batch_size=max(spec.batch_size, *(each.batch_size for each in workloads)),
            context_length=min(info.context_length, longest),
        )
        with self.report.gap_on_error("points"):
            self.report.phase("load for batches")
            with open_spec(wider) as model:
                self.measure(model, workloads)
