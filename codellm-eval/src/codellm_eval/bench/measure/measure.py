"""Everything that one row measures, in the order in which nothing disturbs what comes before it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from codellm.errors import MachineError
from codellm_eval.bench.ask.job import Job
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.measure.growth import Points
from codellm_eval.bench.measure.prompt import task_prompt
from codellm_eval.bench.measure.speed import measure_speed, measure_task
from codellm_eval.bench.records import figures
from codellm_eval.bench.records.record import make_converter
from codellm_eval.bench.records.resident import resident

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.spec import LoadSpec
    from codellm_eval.bench.measure.humaneval import HumanEval
    from codellm_eval.bench.process.pipe import Report


def measure(job: Job, report: Report) -> None:
    """Load, time, read the peak of memory, then everything else.

    The peak is read before long contexts and quality begin, since they need more; the bandwidth is measured once the
    model is closed, since it needs a large buffer; batches and HumanEval come last, each on a load with many slots.

    Raises:
        CodellmError: there is no speed to tell of, and why. A fault of what comes after is a gap instead.
    """
    from codellm.loading import open_spec

    report.phase("load")
    spec = job.spec()
    start = time.perf_counter()
    with open_spec(spec) as model:
        report.fields(load_seconds=time.perf_counter() - start)
        plan = _measure_speed(model, job, report)
        points = Points(plan, report)
        with report.gap_on_error("joules_per_token"):
            _measure_energy(model, plan, report)
        points.measure(model, plan.alone)
        info = model.info
        pending = _begin_quality(model, spec, job, report)
    with report.gap_on_error("bandwidth"):
        _measure_bandwidth(info.backend, info.device, job, report)
    points.measure_together(spec, info)
    if pending is not None:
        with report.gap_on_error("pass_at_1"):
            human_eval, wider = pending
            human_eval.measure(wider, report, Path(job.samples) if job.samples else None)


def _begin_quality(model: Model, spec: LoadSpec, job: Job, report: Report) -> tuple[HumanEval, LoadSpec] | None:
    """What needs no code to run now; of HumanEval what needs this model's tokenizer, None where it will not run."""
    from codellm_eval.bench.measure.humaneval import HumanEval
    from codellm_eval.bench.measure.quality import DUMMY, measure_quality

    plan = job.quality
    if plan is None:
        return None
    if model.info.dummy:
        for figure in figures.FIGURES:
            if figure.kind == "quality" and figure.missing is not None:
                report.gap(figure.field, "dummy", DUMMY)
        return None
    measure_quality(model, job, plan, report)
    pending = None
    with report.gap_on_error("pass_at_1"):
        human_eval = HumanEval.prepare(plan, report)
        if human_eval is not None:
            pending = human_eval, human_eval.spec(spec, model)
    return pending


def _measure_speed(model: Model, job: Job, report: Report) -> Plan:
    """What every row has; returns the plan as it fits this model."""
    from codellm import asking

    converter = make_converter()
    context = model.info.context_length
    prompt = None if job.plan.task is None else task_prompt(model.tokenizer, job.plan.task)
    plan = job.plan.fit(context) if prompt is None else job.plan.of_prompt(len(prompt), context)
    report.fields(info=converter.unstructure(model.info), plan=converter.unstructure(plan))
    if prompt is None:
        speed = measure_speed(model, plan, report.phase)
    else:
        speed = measure_task(model, plan, prompt, report.phase)
    memory, held = asking.memory(model), resident()
    report.fields(
        **converter.unstructure(speed),
        host_peak=memory.host_peak,
        device_peak=memory.device_peak,
        anonymous_peak=held and held.anonymous,
        file_peak=held and held.file,
    )
    return plan


def _measure_energy(model: Model, plan: Plan, report: Report) -> None:
    """Tell what a token takes, or why this machine does not tell."""
    from codellm_eval.bench.measure.energy import measure_energy
    from codellm_eval.bench.measure.meter import meter

    try:
        counter = meter(model.info.device)
    except MachineError as error:
        report.gap("joules_per_token", "n/a", str(error))
        return
    report.phase("energy")
    report.fields(**make_converter().unstructure(measure_energy(model, plan, counter)))


def _measure_bandwidth(backend: str, device: str, job: Job, report: Report) -> None:
    from codellm import asking
    from codellm.plugins.registry import registry

    known = job.bandwidths.get(f"{backend}@{device}")
    if known is None:
        report.phase("bandwidth")
        known = asking.bandwidth(registry().backend(backend), device)
    if known is None:
        report.gap("bandwidth", "n/a", f"{backend} cannot measure the bandwidth of {device}")
    else:
        report.fields(bandwidth=known)
