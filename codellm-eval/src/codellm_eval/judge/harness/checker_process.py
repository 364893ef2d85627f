"""The process beside the worker in which tests run: one check after the other, until one may have left its traces.

It is forked from the worker and knows the problems that were compiled by then. The worker sends a number, a program and
the checker's end of the channel, and takes `[outcome, message, lasting]`; after one that is not lasting it ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from . import kernel, landlock
from .checker import Checker, Problem
from .labels import Label

TOO_LONG = signal.SIGPROF
"""Ends a checker whose check has used its CPU time."""
_GROWTH = 16 << 10
"""KiB that a process may have come to use, of which the next check would have less."""
_HEAD = 8
_MAX_REPORT = 1 << 16
_MANY_DESCRIPTORS = 4096


class Report(NamedTuple):
    """Report of one check."""

    outcome: Label
    message: str
    lasting: bool
    """Whether the process goes on."""


class CheckerProcess:
    """The worker's end of one. `limits` are the candidate's, which keep a test that an answer leads astray; `rules`
    are Landlock's for it, where the worker is held to some.
    """

    def __init__(self, problems: Mapping[int, Problem], limits: dict[str, Any], rules: int | None = None) -> None:
        self._control, theirs = socket.socketpair()
        self._process = os.fork()
        if self._process == 0:
            _check_all(theirs, problems, limits, rules)
        theirs.close()
        counts = f"/proc/{self._process}/schedstat"
        self.schedstat = os.open(counts if Path(counts).exists() else os.devnull, os.O_RDONLY)
        """Tells how long the process was kept from running; nothing where the kernel does not count it."""
        self._known = frozenset(problems)

    def fileno(self) -> int:
        """Descriptor that is readable when a check is over, or the process has ended."""
        return self._control.fileno()

    def knows(self, problem: int) -> bool:
        """Whether it was compiled when this process began."""
        return problem in self._known

    def start(self, problem: int, program: str, end: socket.socket) -> None:
        """Check a program at the other side of `end`; a process that has ended tells so where it is read."""
        data = program.encode("utf-8", "surrogatepass")
        head = problem.to_bytes(_HEAD, "big") + len(data).to_bytes(_HEAD, "big")
        try:
            socket.send_fds(self._control, [head], [end.fileno()])
            self._control.sendall(data)
        except OSError:
            pass

    def report(self) -> Report | None:
        """What it says of the check; None when it has ended without a word."""
        try:
            told = self._control.recv(_MAX_REPORT)
        except OSError:
            return None
        if not told:
            return None
        outcome, message, lasting = json.loads(told)
        return Report(Label(outcome), message, lasting)

    def end(self, *, by_force: bool) -> int:
        """Wait for its end; the exit code, or the negative number of the signal that ended it."""
        if by_force:
            os.kill(self._process, signal.SIGKILL)
        self._control.close()
        os.close(self.schedstat)
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


def _check_all(
    control: socket.socket, problems: Mapping[int, Problem], limits: dict[str, Any], rules: int | None
) -> NoReturn:
    """Check programs in the forked process, until one leaves traces or nobody asks any more; never returns."""

    def tell(outcome: Label, message: str, *, lasting: bool = False) -> None:
        control.sendall(json.dumps([outcome, message, lasting]).encode())
        if not lasting:
            os._exit(0)

    try:
        try:
            kernel.die_with_parent()
            if rules is not None:
                landlock.restrict(rules)
            _stay_within(limits["memory"], control.fileno())
        except BaseException as error:  # there is nobody else to tell
            tell(Label.BROKEN, f"the checker cannot be limited: {type(error).__name__}: {error}")
        most = _peak() + _GROWTH
        while True:
            problem, program, end = _next(control, problems)
            signal.setitimer(signal.ITIMER_PROF, limits["resources"]["RLIMIT_CPU"])
            with end:
                outcome, message = Checker(problem, end, tell).run(program)
            signal.setitimer(signal.ITIMER_PROF, 0)
            lasting = not problem.leaves_traces and outcome is not Label.MEMORY and _peak() < most
            tell(outcome, message, lasting=lasting)
    finally:
        os._exit(1)


def _next(control: socket.socket, problems: Mapping[int, Problem]) -> tuple[Problem, str, socket.socket]:
    head, descriptors, _, _ = socket.recv_fds(control, 2 * _HEAD, 1)
    if not head:
        os._exit(0)
    number, size = int.from_bytes(head[:_HEAD], "big"), int.from_bytes(head[_HEAD:], "big")
    data = bytearray()
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return problems[number], data.decode("utf-8", "surrogatepass"), socket.socket(fileno=descriptors[0])


def _peak() -> int:
    """Peak of its memory, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _stay_within(memory: int, keep: int) -> None:
    """Keep tests within the candidate's memory, and away from other descriptors than `keep`."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, _MANY_DESCRIPTORS)
