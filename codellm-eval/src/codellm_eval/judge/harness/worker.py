"""The trusted process that judges one sample after the other: a checker beside it, a candidate in the sandbox.

stdin brings a configuration and then jobs, each JSON after four bytes of length; stdout takes the verdicts in their
order. The end of stdin ends the worker and everything that it started.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import select
import signal
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import imports, kernel, landlock
from .checker import Problem, one_line
from .checker_process import TOO_LONG, CheckerProcess
from .labels import Label
from .sandboxed import Broken, Sandboxed
from .server import COMMON

_MAX_REPORT = 1 << 16
_MAX_READ = 1 << 20
_MAX_PROBLEMS = 512
_LATEST = 10
"""Times the wall limit when a check ends at the latest. The limit itself is kept by init, on the candidate's clock."""
_PROCESSES = "/proc"
_STATISTICS = "/proc/vmstat"
_PATIENCE = 3.0
"""Seconds for a candidate that left its channel to end; it takes far less unless it stays on purpose."""


class Jobs:
    """What comes in on stdin, read also while a job runs, so that whoever sends never waits."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._waiting: deque[dict[str, Any]] = deque()

    def next(self) -> dict[str, Any]:
        """The next job. Raises EOFError when there are no more."""
        while not self._waiting:
            self.read()
        return self._waiting.popleft()

    def read(self) -> None:
        """Read what has come. Raises EOFError at the end of stdin, whatever is still to do."""
        piece = os.read(0, _MAX_READ)
        if not piece:
            raise EOFError
        self._data += piece
        while len(self._data) >= 4 and len(self._data) >= 4 + (size := int.from_bytes(self._data[:4], "big")):
            self._waiting.append(json.loads(self._data[4 : 4 + size]))
            del self._data[: 4 + size]


class Worker:
    """Its sandbox, its limits and the problems that it compiled."""

    def __init__(self, configuration: dict[str, Any], jobs: Jobs) -> None:
        self._limits = configuration["limits"]
        self._sandboxed = Sandboxed(configuration["sandbox"])
        self._jobs = jobs
        self._checker: CheckerProcess | None = None
        self._numbers: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._unused = itertools.count()
        self._problems: dict[int, Problem] = {}
        self._kernel_kills = _kernel_kills()
        self._rules: int | None = None
        if not configuration["sandbox"]["once"] and landlock.version():
            self._rules = _confine(configuration["sandbox"]["readable"])

    def judge(self, job: dict[str, Any]) -> dict[str, Any]:
        """The verdict on one job, or `unusable` where the problem is no Python.

        Raises:
            Broken: the sandbox failed, which is no verdict.
            EOFError: nobody wants it any more.
        """
        try:
            problem = self._problem(job)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return {"unusable": one_line(f"{type(error).__name__}: {error}")}
        start = time.monotonic()
        checker = self._checker_for(problem)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._sandboxed.start(theirs, checker.schedstat, self._limits)
            checker.start(problem, job["program"], ours)
        outcome, message = self._outcome(checker, start + _LATEST * self._limits["wall_seconds"])
        return {"outcome": outcome, "message": message, "seconds": time.monotonic() - start}

    def close(self) -> None:
        """End the checker, the sandbox and what runs in it."""
        self._sandboxed.close()
        if self._checker is not None:
            self._checker.end(by_force=True)

    def _problem(self, job: dict[str, Any]) -> int:
        """The number of the job's problem, compiled."""
        parts = (job["prompt"], job["reference"], job["test"], job["entry_point"])
        if parts not in self._numbers:
            problem = Problem(*parts)
            if len(self._numbers) >= _MAX_PROBLEMS:
                del self._problems[self._numbers.popitem(last=False)[1]]
            self._numbers[parts] = next(self._unused)
            self._problems[self._numbers[parts]] = problem
        return self._numbers[parts]

    def _checker_for(self, problem: int) -> CheckerProcess:
        """The checker, another one if it does not know the problem."""
        if self._checker is not None and not self._checker.knows(problem):
            self._checker.end(by_force=True)
            self._checker = None
        if self._checker is None:
            self._checker = CheckerProcess(self._problems, self._limits, self._rules)
        return self._checker

    def _outcome(self, checker: CheckerProcess, deadline: float) -> tuple[Label, str]:
        in_time = self._wait(checker.fileno(), deadline)
        report = checker.report() if in_time else None
        code = 0
        if report is None or not report.lasting:
            code = checker.end(by_force=not in_time)
            self._checker = None
        status = self._sandboxed.end(_PATIENCE if report and report.outcome is Label.GONE else 0.0)
        if not in_time:
            return Label.TIMEOUT, self._too_long()
        if report is None:
            return self._how_the_checker_ended(code)
        if report.outcome is Label.BROKEN:
            raise Broken(report.message)
        if report.outcome is Label.GONE:
            return self._how_it_ended(status)
        return report.outcome, report.message

    def _how_the_checker_ended(self, code: int) -> tuple[Label, str]:
        if code == -TOO_LONG:
            return (
                Label.TIMEOUT,
                f"the test used {self._limits['resources']['RLIMIT_CPU']} s of CPU time on the answers",
            )
        return Label.REFUSED, f"the test's process ended with {_signal_name(code) if code < 0 else code} on the answers"

    def _too_long(self) -> str:
        return f"still running after {self._limits['wall_seconds']:g} s"

    def _wait(self, listen: int, deadline: float) -> bool:
        """Whether the checker reported or ended before the deadline."""
        poll = select.poll()
        poll.register(listen, select.POLLIN)
        poll.register(0, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(1000 * left)}
            if 0 in ready:
                self._jobs.read()
            if listen in ready:
                return True
        return False

    def _how_it_ended(self, status: dict[str, Any]) -> tuple[Label, str]:
        """The label of a candidate whose end of the channel closed in the middle of the check."""
        seconds, code = self._limits["resources"]["RLIMIT_CPU"], status["status"]
        if status["stopped"] == "memory":
            return Label.MEMORY, f"its processes used more than {self._limits['memory'] >> 20} MiB together"
        if status["stopped"] == "disk":
            return Label.FAILED, "it wrote more files, or larger ones, than its folder may hold"
        if status["stopped"] == "cpu":
            return Label.TIMEOUT, f"its processes used {seconds} s of CPU time together"
        if status["stopped"] == "time":
            return Label.TIMEOUT, self._too_long()
        if status["stopped"]:
            return Label.REFUSED, "the program closed the judge's channel"
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and status["cpu"] >= seconds):
            return Label.TIMEOUT, f"used {seconds} s of CPU time"
        if code == -signal.SIGKILL:
            before, self._kernel_kills = self._kernel_kills, _kernel_kills()
            if self._kernel_kills > before:
                return Label.MEMORY, "the kernel killed it: the machine is out of memory"
        if code < 0:
            return Label.CRASH, f"killed by {_signal_name(code)}"
        return Label.FAILED, f"the process ended with status {code} before the test did"


def _confine(readable: Iterable[str]) -> int:
    """Leave this process no files but the interpreter's and the kernel's figures, and no program to start.

    The rules for its checkers, which are left not even the figures. Tests are trusted and answers are not. Where a
    sandbox is started for each sample, this would keep from starting it.
    """
    imports.keep_listings()
    kernel.forbid_privileges()
    rules = landlock.ruleset(readable, ("/dev/null",))
    landlock.restrict(landlock.ruleset((*readable, _PROCESSES), ("/dev/null",)))
    return rules


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _kernel_kills() -> int:
    """How many processes the kernel has killed so far because memory had run out."""
    try:
        lines = Path(_STATISTICS).read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _say(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    """Judge until stdin ends, or the sandbox fails: then the last message is `broken`, and why."""
    for name in COMMON:
        importlib.import_module(name)
    jobs, worker = Jobs(), None
    try:
        worker = Worker(jobs.next(), jobs)
        gc.collect()
        gc.freeze()
        while True:
            _say(worker.judge(jobs.next()))
    except EOFError:
        pass
    except Broken as error:
        _say({"broken": str(error)})
    except OSError as error:
        _say({"broken": f"{error.strerror or error}"})
    finally:
        if worker is not None:
            worker.close()
        sys.exit()
