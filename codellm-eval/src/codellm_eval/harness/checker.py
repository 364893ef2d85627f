"""The trusted process: runs the hidden test with a stub in the candidate's place.

Test and expected values stay here. The stub sends arguments to the candidate and takes plain data back, so the test
compares values of exact builtin types and nothing of the candidate runs here. It ends by `os._exit` as soon as the
outcome is known: a test that catches everything must not go on without a candidate.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from .channel import Channel, Closed
from .peer import Peer

MODULE = "problem"
MAX_MESSAGE = 300
_MANY_DESCRIPTORS = 4096
_UNFINISHED_BODY = "    pass\n"


class Problem:
    """A problem's compiled parts, kept from sample to sample.

    Raises:
        SyntaxError, ValueError: the prompt or the test is no Python.
    """

    def __init__(self, prompt: str, reference: str, test: str, entry_point: str) -> None:
        self.entry_point = entry_point
        self.test = compile(test, "test.py", "exec", dont_inherit=True)
        self.helpers = self._compile(reference, prompt)

    @staticmethod
    def _compile(reference: str, prompt: str) -> types.CodeType:
        """Tests use helpers that stand in the prompt; it may lack the body of its function, or be half of a program."""
        for source in (reference, prompt):
            try:
                return compile(source, "reference.py", "exec", dont_inherit=True)
            except SyntaxError:
                continue
        return compile(prompt + _UNFINISHED_BODY, "reference.py", "exec", dont_inherit=True)


class Checker:
    """One check of one program. `report` takes the outcome and its message, once, and ends the process."""

    def __init__(self, problem: Problem, end: socket.socket, report: Callable[[str, str], NoReturn]) -> None:
        self._problem = problem
        self._names: dict[str, Any] = {}
        self._peer = Peer(Channel(end), trusted=True, names=self._names, lost=self._give_up)
        self._report = report
        self._called = False

    def run(self, program: str) -> NoReturn:
        """Define the program, check it and report."""
        try:
            self._check(self._peer.ask([program, self._problem.entry_point], {}))
        except BaseException as error:  # a test may raise anything, and a candidate have it raised
            self._report(*_failure(error))
        if not self._called:
            self._report("failed", "the test never called the candidate")
        self._report("passed", "")

    def _check(self, target: Any) -> None:
        def stub(*args: Any, **kwargs: Any) -> Any:
            self._called = True
            return self._peer.call(target, args, kwargs)

        module = types.ModuleType(MODULE)
        sys.modules[MODULE] = module
        names = module.__dict__
        exec(self._problem.helpers, names)  # noqa: S102 - the problem is trusted, as in every evaluation
        self._names.update(names)
        reference = names.get(self._problem.entry_point)
        stub.__name__ = stub.__qualname__ = self._problem.entry_point
        stub.__doc__ = getattr(reference, "__doc__", None)
        names[self._problem.entry_point] = stub
        exec(self._problem.test, names)  # noqa: S102 - likewise
        names["check"](stub)

    def _give_up(self, why: Exception) -> NoReturn:
        """There is no answer. Not an exception, which the test might catch and go on without its candidate."""
        self._report("gone" if isinstance(why, Closed) else "refused", one_line(str(why)))


def _failure(error: BaseException) -> tuple[str, str]:
    try:
        text = str(error)
    except Exception:  # an integer too long to print for instance
        text = ""
    name = type(error).__name__
    return "memory" if isinstance(error, MemoryError) else "failed", one_line(f"{name}: {text}" if text else name)


def one_line(text: str) -> str:
    """Bounded, printable and in one line: it may come from the candidate and goes to a terminal."""
    words = " ".join(text[: 4 * MAX_MESSAGE].split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:MAX_MESSAGE]


def stay_within(seconds: int, memory: int, keep: set[int]) -> None:
    """Keep a test that an answer leads astray within the candidate's limits, and away from other descriptors."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    first = 3
    for kept in sorted(keep):
        os.closerange(first, kept)
        first = kept + 1
    os.closerange(first, _MANY_DESCRIPTORS)
