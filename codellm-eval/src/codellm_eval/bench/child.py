"""The process of one row: `python -m codellm_eval.bench.child FD`, a job as one line of JSON on stdin.

It reports on the file descriptor FD, one JSON object a line, so that a library which prints to stdout or stderr breaks
nothing: `{"phase": TEXT}` what begins now, `{"fields": {…}}` fields of the row's Record that are known now,
`{"gap": COLUMN, "cell": …, "note": …}` a cell that stays empty, `{"error": TEXT}` the end of a row that failed,
`{"done": true}` the end of one that did not. The parent keeps stdin open; when it closes, the parent is gone and so is
this process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from typing import Any

from codellm.errors import CodellmError


class Report:
    """The way to the parent."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # what this process starts must not hold the pipe open
        self._file = os.fdopen(fd, "w", encoding="utf-8")

    def send(self, **event: Any) -> None:
        """One event."""
        print(json.dumps(event), file=self._file, flush=True)

    def phase(self, text: str) -> None:
        """Say what begins now."""
        self.send(phase=text)

    def fields(self, **fields: Any) -> None:
        """Give fields of the Record, as JSON."""
        self.send(fields=fields)

    def gap(self, column: str, cell: str, note: str) -> None:
        """Say why a cell stays empty."""
        self.send(gap=column, cell=cell, note=note)


def take_stdin() -> str:
    """Read the job, hide stdin from what this process starts, and end with the parent."""
    private = os.fdopen(os.dup(0), "r", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    line = private.readline()

    def watch() -> None:
        private.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return line


def explain(error: BaseException) -> str:
    """An error as one line: our own as they are, others with their type."""
    text = " ".join(str(error).split())
    if isinstance(error, CodellmError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def main(arguments: list[str]) -> int:
    """Run the job on stdin; exit code 0 when the row worked, 1 when it says why it did not."""
    report = Report(int(arguments[0]))
    text = take_stdin()
    try:
        from codellm_eval.bench.job import Job
        from codellm_eval.bench.measure import measure
        from codellm_eval.bench.prepare import prepare
        from codellm_eval.bench.record import make_converter

        job = make_converter().structure(json.loads(text), Job)
        (prepare if job.stage == "prepare" else measure)(job, report)
    except Exception as error:
        traceback.print_exc()
        report.send(error=explain(error))
        return 1
    report.send(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
