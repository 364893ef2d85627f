"""The process of one row: `python -m codellm_eval.bench.measure FD`; see `process.serve`."""

from __future__ import annotations

import sys
from typing import Any

from codellm_eval.bench.process.pipe import Report
from codellm_eval.bench.process.serve import serve


def _row(data: Any, report: Report) -> None:
    from codellm_eval.bench.ask.job import Job
    from codellm_eval.bench.measure.measure import measure
    from codellm_eval.bench.measure.prepare import prepare
    from codellm_eval.bench.records.record import make_converter

    job = make_converter().structure(data, Job)
    if job.stage == "prepare":
        prepare(job.spec(), report)
    else:
        measure(job, report)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], _row))
