"""The trusted process that judges one sample after the other: a checker beside it, a candidate in the sandbox.

stdin brings a configuration and then jobs, each JSON after four bytes of length; stdout takes the verdicts in their
order. The end of stdin ends the worker and everything that it started.
"""

from __future__ import annotations

import gc
import importlib
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
from typing import Any, NoReturn

from . import kernel, landlock
from .checker import Checker, Problem, one_line, stay_within
from .sandboxed import Broken, Sandboxed
from .server import COMMON

_MAX_REPORT = 1 << 16
_MAX_READ = 1 << 20
_MAX_PROBLEMS = 512
_LATEST = 10
"""Times the wall limit when a check ends at the latest. The limit itself is kept by init, on the candidate's clock."""
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
        self._problems: OrderedDict[tuple[str, ...], Problem] = OrderedDict()
        self._kernel_kills = _kernel_kills()
        if not configuration["sandbox"]["once"] and landlock.version():
            _confine(configuration["sandbox"]["readable"])

    def judge(self, job: dict[str, Any]) -> dict[str, Any]:
        """The verdict on one job, or `unusable` where the problem is no Python.

        Raises:
            Broken: the sandbox failed, which is no verdict.
            EOFError: nobody wants it any more.
        """
        try:
            problem = self._problem(job)
        except (SyntaxError, ValueError) as error:
            return {"unusable": one_line(f"{type(error).__name__}: {error}")}
        start = time.monotonic()
        ours, theirs = socket.socketpair()
        listen, tell = os.pipe()
        self._sandboxed.start(theirs, self._limits)
        theirs.close()
        checker = os.fork()
        if checker == 0:
            self._check(problem, job["program"], ours, tell)
        ours.close()
        os.close(tell)
        try:
            outcome, message = self._outcome(listen, checker, start + _LATEST * self._limits["wall_seconds"])
        finally:
            os.close(listen)
        return {"outcome": outcome, "message": message, "seconds": time.monotonic() - start}

    def close(self) -> None:
        """End the sandbox and what runs in it."""
        self._sandboxed.close()

    def _problem(self, job: dict[str, Any]) -> Problem:
        parts = (job["prompt"], job["reference"], job["test"], job["entry_point"])
        if parts not in self._problems:
            if len(self._problems) >= _MAX_PROBLEMS:
                self._problems.popitem(last=False)
            self._problems[parts] = Problem(*parts)
        return self._problems[parts]

    def _check(self, problem: Problem, program: str, end: socket.socket, tell: int) -> NoReturn:
        """In the forked checker."""

        def report(outcome: str, message: str) -> NoReturn:
            os.write(tell, json.dumps([outcome, message]).encode())
            os._exit(0)

        try:
            kernel.die_with_parent()
            stay_within(self._limits["resources"]["RLIMIT_CPU"], self._limits["memory"], {end.fileno(), tell})
        except BaseException as error:  # there is nobody else to tell
            report("broken", f"the checker cannot be limited: {type(error).__name__}: {error}")
        try:
            Checker(problem, end, report).run(program)
        finally:
            os._exit(1)

    def _outcome(self, listen: int, checker: int, deadline: float) -> tuple[str, str]:
        reported = self._wait(listen, deadline)
        if not reported:
            os.kill(checker, signal.SIGKILL)
        told = os.read(listen, _MAX_REPORT) if reported else b""
        _, wait_status, usage = os.wait4(checker, 0)
        seconds = self._limits["resources"]["RLIMIT_CPU"]
        outcome, message = json.loads(told) if told else ("", "")
        status = self._sandboxed.end(_PATIENCE if outcome == "gone" else 0.0)
        if not reported:
            return "timeout", self._too_long()
        if outcome == "broken":
            raise Broken(message)
        if outcome == "gone":
            return self._how_it_ended(status)
        if outcome:
            return outcome, message
        if usage.ru_utime + usage.ru_stime >= seconds:
            return "timeout", f"the test used {seconds} s of CPU time on the answers"
        code = os.waitstatus_to_exitcode(wait_status)
        return "refused", f"the test's process ended with {_signal_name(code) if code < 0 else code} on the answers"

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

    def _how_it_ended(self, status: dict[str, Any]) -> tuple[str, str]:
        """The label of a candidate whose end of the channel closed in the middle of the check."""
        seconds, code = self._limits["resources"]["RLIMIT_CPU"], status["status"]
        if status["stopped"] == "memory":
            return "memory", f"its processes used more than {self._limits['memory'] >> 20} MiB together"
        if status["stopped"] == "disk":
            return "failed", "it wrote more files, or larger ones, than its folder may hold"
        if status["stopped"] == "cpu":
            return "timeout", f"its processes used {seconds} s of CPU time together"
        if status["stopped"] == "time":
            return "timeout", self._too_long()
        if status["stopped"]:
            return "refused", "the program closed the judge's channel"
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and status["cpu"] >= seconds):
            return "timeout", f"used {seconds} s of CPU time"
        if code == -signal.SIGKILL:
            before, self._kernel_kills = self._kernel_kills, _kernel_kills()
            if self._kernel_kills > before:
                return "memory", "the kernel killed it: the machine is out of memory"
        if code < 0:
            return "crash", f"killed by {_signal_name(code)}"
        return "failed", f"the process ended with status {code} before the test did"


def _confine(readable: Iterable[str]) -> None:
    """Leave this process and its checkers no files but the interpreter's, and no program to start.

    Tests are trusted and answers are not. Where a sandbox is started for each sample, this would keep from starting it.
    """
    kernel.forbid_privileges()
    landlock.restrict(landlock.ruleset((*readable, _STATISTICS), ("/dev/null",)))


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
