"""The quality columns of a row: bits per byte and pass@1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codellm_eval.bench.job import Job, QualityPlan

if TYPE_CHECKING:
    from codellm.model import Model, ModelInfo
    from codellm.spec import LoadSpec
    from codellm_eval.bench.child import Report

DUMMY = "dummy weights are random: they have a speed and no quality"


def measure_bits(model: Model, plan: QualityPlan, report: Report) -> None:
    """Bits per byte on the held-out corpus."""
    if model.info.dummy:
        report.gap("bits_per_byte", "dummy", DUMMY)
        return


def measure_pass(spec: LoadSpec, info: ModelInfo, job: Job, report: Report) -> None:
    """HumanEval, one greedy sample of each task."""
    if info.dummy:
        report.gap("pass_at_1", "dummy", DUMMY)
        return
