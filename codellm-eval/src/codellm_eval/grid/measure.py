"""The cells of a row, one after the other in one process, as long as that is sound."""

from __future__ import annotations

import gc
import time
import traceback
from typing import TYPE_CHECKING, Any

import attrs

from codellm.errors import CodellmError
from codellm_eval.bench.process.pipe import explain
from codellm_eval.grid.cell import Cell, causes, converter
from codellm_eval.grid.job import GridJob
from codellm_eval.grid.plan import Size
from codellm_eval.grid.protocols import measure

if TYPE_CHECKING:
    from codellm_eval.bench.process.pipe import Report


def measure_cells(job: GridJob, report: Report) -> None:
    """Measure the job's cells and tell of each. What is left when this ends is for a process of its own."""
    for size in job.sizes:
        if not _tell(job, size, report):
            return


def _tell(job: GridJob, size: Size, report: Report) -> bool:
    """Measure a cell, tell of it; whether this process is fit for the next.

    It is not where it ran out of memory or broke in a way that nobody foresaw, nor where the peak is the host's: the
    system tells the most that a process ever held, and that would be the next cell's too.
    """
    start = time.perf_counter()
    try:
        cell = _measure(job, size, report)
        fit = bool(cell.device_peak)
    except Exception as error:
        traceback.print_exc()
        memory = next((each for each in causes(error) if isinstance(each, MemoryError)), None)
        if memory is not None:
            cell = Cell(row=job.row, size=size, out_of_memory=explain(memory))
        else:
            cell = job.failed(size, explain(error))
        fit = memory is None and isinstance(error, CodellmError)
    report.send(cell=converter().unstructure(_timed(cell, start)))
    gc.collect()  # what a traceback still held of the model's memory
    return fit


def _timed(cell: Cell, start: float) -> Cell:
    return attrs.evolve(cell, seconds=time.perf_counter() - start)


def _measure(job: GridJob, size: Size, report: Report) -> Cell:
    from codellm import asking
    from codellm.loading import open_spec

    report.phase("load")
    with open_spec(job.spec(size)) as model:
        figures: dict[str, Any] = {**measure(model, size, job.plan, report.phase)}
        memory = asking.memory(model)
        return Cell(
            row=job.row,
            size=size,
            info=model.info,
            host_peak=memory.host_peak,
            device_peak=memory.device_peak,
            **figures,
        )
