"""The child's side of a row's process: `python -m MODULE FD` takes a job as one line of JSON on stdin.

It reports on the file descriptor FD; see `pipe`. The parent keeps stdin open; when it closes, the parent is gone and
so is this process.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any

from codellm.plugins.exits import no_exit
from codellm_eval.bench.process.pipe import Report, explain


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


def serve(arguments: list[str], work: Callable[[Any, Report], None]) -> int:
    """Do `work` with the job on stdin; exit code 0 when it could be done, 1 when it says why it could not."""
    report = Report(int(arguments[0]))
    text = take_stdin()
    try:
        with no_exit():
            work(json.loads(text), report)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin that ends the process ends its row
        traceback.print_exc()
        report.send(error=explain(error))
        return 1
    report.send(done=True)
    return 0
