"""The untrusted process: runs the program and answers calls of its function. What it says is data to the checker."""

from __future__ import annotations

import os
import socket
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from .channel import Channel, Closed, Refused
from .peer import Peer

MODULE = "candidate"


def answer_calls(end: socket.socket) -> None:
    """Take a program and the name of its function, and serve both; never returns."""
    leave = os._exit
    try:
        channel = _OwnChannel(end)
        program, entry_point = channel.receive()
        peer = Peer(channel, trusted=False, names={}, lost=_lose)
        peer.answer(lambda: peer.handles.lend(_define(program, entry_point)))
        peer.serve()
    except (Closed, Refused):
        leave(0)
    finally:
        leave(1)


def _lose(why: Exception) -> NoReturn:
    raise why


class _OwnChannel(Channel):
    """Channel on which only the process that opened it answers: a copy that the program forked ends where it would."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self._process, self._getpid, self._leave = os.getpid(), os.getpid, os._exit

    def send(self, message: Any) -> None:
        if self._getpid() != self._process:
            self._leave(1)
        super().send(message)


def _define(program: str, entry_point: str) -> Callable[..., Any]:
    # A module of its own, not __main__: a main block must not run, and dataclasses look their module up by its name.
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    exec(compile(program, "completion.py", "exec"), module.__dict__)  # noqa: S102 - what the sandbox is for
    try:
        function: Callable[..., Any] = module.__dict__[entry_point]
    except KeyError:
        raise NameError(f"name {entry_point!r} is not defined") from None
    return function
