"""The trusted process: runs the hidden test with a stub in the candidate's place.

Test and expected values stay here. The stub sends arguments to the candidate and takes plain data back, so the test
compares values of exact builtin types and nothing of the candidate runs here. When the candidate is lost the process
ends at once: a test that catches everything must not go on without one.
"""

from __future__ import annotations

import ast
import socket
import sys
import types
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from .channel import Channel, Closed
from .labels import Label
from .peer import Peer
from .traces import leaves_traces

MODULE = "problem"
MAX_MESSAGE = 300
_MAX_NAME = 60
_UNFINISHED_BODY = "    pass\n"


class Problem:
    """A problem's compiled parts, kept from sample to sample.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: the prompt or the test is no Python, or too deeply nested.
    """

    def __init__(self, prompt: str, reference: str, test: str, entry_point: str) -> None:
        self.entry_point = entry_point
        self.leaves_traces = False
        """Whether a check may change more in its process than what is the check's own."""
        self.test = self._compile("test.py", test)
        # Tests use helpers that stand in the prompt; it may lack the body of its function, or be half of a program.
        self.helpers = self._compile("reference.py", reference, prompt, prompt + _UNFINISHED_BODY)

    def _compile(self, name: str, source: str, *others: str) -> types.CodeType:
        """The first source that is Python."""
        try:
            tree = ast.parse(source)
            code = compile(tree, name, "exec", dont_inherit=True)
        except SyntaxError:
            if not others:
                raise
            return self._compile(name, *others)
        self.leaves_traces |= leaves_traces(tree)
        return code


class Checker:
    """A check of one program. `lose` takes an outcome and its message where the candidate is gone, and never returns:
    an exception the test might catch, and go on without its candidate.
    """

    def __init__(self, problem: Problem, end: socket.socket, lose: Callable[[Label, str], Any]) -> None:
        self._problem = problem
        self._module = types.ModuleType(MODULE)
        self._names: dict[str, Any] = {}
        self._peer = Peer(Channel(end), trusted=True, names=self._names, lost=self._give_up)
        self._lose = lose
        self._called = False

    def run(self, program: str) -> tuple[Label, str]:
        """Define the program and check it; the outcome and its message."""
        try:
            self._check(self._peer.ask([program, self._problem.entry_point], {}))
        except BaseException as error:  # a test may raise anything, and a candidate have it raised
            outcome, message = _failure(error)
            return outcome, _with_hint(message, self._peer.handles.kept)
        finally:
            self._module.__dict__.clear()  # its functions hold it, so that nothing else would free it soon
        return (Label.PASSED, "") if self._called else (Label.FAILED, "the test never called the candidate")

    def _check(self, target: Any) -> None:
        def stub(*args: Any, **kwargs: Any) -> Any:
            self._called = True
            return self._peer.call(target, args, kwargs)

        sys.modules[MODULE] = self._module
        names = self._module.__dict__
        exec(self._problem.helpers, names)  # noqa: S102 - the problem is trusted, as in every evaluation
        self._names.update(names)
        reference = names.get(self._problem.entry_point)
        stub.__name__ = stub.__qualname__ = self._problem.entry_point
        stub.__doc__ = getattr(reference, "__doc__", None)
        names[self._problem.entry_point] = stub
        exec(self._problem.test, names)  # noqa: S102 - likewise
        names["check"](stub)

    def _give_up(self, why: Exception) -> NoReturn:
        self._lose(Label.GONE if isinstance(why, Closed) else Label.REFUSED, one_line(str(why)))
        raise AssertionError("the process goes on without a candidate")


def _failure(error: BaseException) -> tuple[Label, str]:
    try:
        text = str(error)
    except Exception:  # an integer too long to print for instance
        text = ""
    name = type(error).__name__
    label = Label.MEMORY if isinstance(error, MemoryError) else Label.FAILED
    return label, one_line(f"{name}: {text}" if text else name)


def _with_hint(message: str, kept: Collection[str]) -> str:
    """The message, and a class of which an object was passed to the program, which cannot read its attributes."""
    if not kept:
        return message
    hint = one_line(f" (an argument of class {min(kept)[:_MAX_NAME]} does not cross)")
    return message[: MAX_MESSAGE - len(hint)] + f" {hint}"[:MAX_MESSAGE]


def one_line(text: str) -> str:
    """Make a message bounded, printable and one line: it may come from the candidate and goes to a terminal."""
    words = " ".join(text[: 4 * MAX_MESSAGE].split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:MAX_MESSAGE]
