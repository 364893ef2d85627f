"""Everything that one row measures, in the order in which nothing disturbs what comes before it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from codellm_eval.bench.job import Job
from codellm_eval.bench.record import make_converter
from codellm_eval.bench.speed import measure_speed

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm_eval.bench.child import Report


def measure(job: Job, report: Report) -> None:
    """Load, time, read the peak of memory, then quality.

    The peak is read before quality begins, since scoring and batches need more; the bandwidth is measured once the
    model is closed, since it needs a large buffer; HumanEval runs last, on a second load with many places.

    Raises:
        CodellmError: there is no speed to tell of, and why. A fault of the quality part is a gap instead.
    """
    from codellm.loading import open_spec
    from codellm_eval.bench.quality import measure_bits, measure_pass

    report.phase("load")
    spec = job.spec()
    start = time.perf_counter()
    with open_spec(spec) as model:
        report.fields(load_seconds=time.perf_counter() - start)
        _measure_speed(model, job, report)
        info = model.info
        if job.quality is not None:
            measure_bits(model, job.quality, report)
    _measure_bandwidth(info.backend, info.device, job, report)
    if job.quality is not None:
        measure_pass(spec, info, job, report)


def _measure_speed(model: Model, job: Job, report: Report) -> None:
    converter = make_converter()
    plan = job.plan.fit(model.info.context_length)
    report.fields(info=converter.unstructure(model.info), plan=converter.unstructure(plan))
    speed = measure_speed(model, plan, report.phase)
    memory = model.memory()
    report.fields(
        **converter.unstructure(speed),
        host_peak=memory.host_peak,
        device_peak=memory.device_peak,
    )


def _measure_bandwidth(backend: str, device: str, job: Job, report: Report) -> None:
    from codellm.registry import registry
    from codellm_eval.bench.child import explain

    known = job.bandwidths.get(f"{backend}@{device}")
    if known is None:
        report.phase("bandwidth")
        try:
            known = registry().backend(backend).bandwidth(device)
        except Exception as error:
            report.gap("bandwidth", "failed", f"the bandwidth of {device} could not be measured: {explain(error)}")
            return
    if known is None:
        report.gap("bandwidth", "n/a", f"{backend} cannot measure the bandwidth of {device}")
    else:
        report.fields(bandwidth=known)
