"""The further workloads of a row: which load measures which, and what of them is told when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.measure.growth import measure_growth
from codellm_eval.bench.process.pipe import Report
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.record import make_converter

if TYPE_CHECKING:
    from codellm.model import Model, ModelInfo
    from codellm.spec import LoadSpec


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
        """Measure the plan's batches on a load of their own, with as many places as they need.

        Each place is just long enough: at a model's whole context the keys and values of many would not fit in memory.
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
