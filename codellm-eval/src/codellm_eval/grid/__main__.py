"""The process of a row's cells: `python -m codellm_eval.grid FD`; see `bench.process.serve`.

Beside the events of `bench.process.pipe` it tells `{"cell": {…}}`, a finished Cell.
"""

from __future__ import annotations

import sys
from typing import Any

from codellm_eval.bench.process.pipe import Report
from codellm_eval.bench.process.serve import serve


def _cells(data: Any, report: Report) -> None:
    from codellm_eval.bench.measure.prepare import prepare
    from codellm_eval.grid.cell import converter
    from codellm_eval.grid.job import GridJob
    from codellm_eval.grid.measure import measure_cells

    job = converter().structure(data, GridJob)
    if job.stage == "prepare":
        prepare(job.spec(job.sizes[0]), report)
    else:
        measure_cells(job, report)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], _cells))
