"""The worker's end of the sandbox: starts the server, hands it samples, and waits until nothing of them is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

from .init import FIRST_VICTIM

_START_SECONDS = 60.0
"""For the interpreter to come up on a machine that is busy."""
_END_SECONDS = 60.0
"""For the kernel to take a killed sample apart on a machine that is busy."""
_MAX_MESSAGE = 1 << 16
_MAX_COMPLAINT = 4096
_SCORE = Path("/proc/self/oom_score_adj")
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores, and what it starts should not."""
_UNUSED_UIDS = range(1879048192, 2147483647)
"""User ids that systemd's allocation table (UIDS-GIDS) leaves to nobody."""


class Broken(Exception):  # noqa: N818 - the caller decides whether it is an error
    """The sandbox does not do its part, which says nothing about a sample."""


class Sandboxed:
    """A sandbox by its configuration: `command`, `environment`, `once`, `own_user`, `harness`, `layout`, `readable`."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._command: list[str] = configuration["command"]
        self._environment: dict[str, str] = configuration["environment"]
        self._once: bool = configuration["once"]
        self._own_user: bool = configuration["own_user"]
        self._harness = os.open(configuration["harness"], os.O_PATH | os.O_DIRECTORY)
        self._layout = json.dumps({**configuration["layout"], "readable": configuration["readable"]}).encode()
        self._score = _SCORE.read_bytes() if self._once else b""
        self._launch()

    @property
    def control(self) -> socket.socket:
        """Socket that is readable when the sample has ended."""
        return self._control

    def start(self, end: socket.socket, checker: int, limits: dict[str, Any]) -> None:
        """Start a candidate that answers on the other side of `end`; `checker` is the open `schedstat` of who asks.

        Raises:
            Broken: the server is gone.
        """
        # Its own user id for each: the kernel counts processes by user, and exempts root from the count.
        uid = _UNUSED_UIDS[int.from_bytes(os.urandom(4), "big") % len(_UNUSED_UIDS)] if self._own_user else None
        request = json.dumps({"uid": uid, **limits}).encode()
        try:
            socket.send_fds(self._control, [request], [end.fileno(), checker])
        except OSError as error:
            raise Broken(f"the sandbox ended: {error.strerror}") from error

    def end(self, patience: float) -> dict[str, Any]:
        """How the candidate ended, by itself within `patience` seconds or killed; nothing of it is left then.

        Raises:
            Broken: the sandbox does not answer.
        """
        if not self._readable(patience):
            self._order_death()
            if not self._readable(_END_SECONDS):
                raise Broken(f"a killed program was still there after {_END_SECONDS:g} s")
        told = self._hear()
        if not told:
            raise Broken("the sandbox ended in the middle of a program")
        status: dict[str, Any] = json.loads(told)
        if self._once:
            self.close()
            self._launch()
        if "broken" in status:
            raise Broken(f"the sandbox cannot prepare a program's place: {status['broken']}")
        return status

    def close(self) -> None:
        """End it; the server kills what runs."""
        self._control.close()
        self._bury(_END_SECONDS)

    def _launch(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints, complain = os.pipe()
        given = (theirs.fileno(), complain, complain, self._harness)
        streams = [(os.POSIX_SPAWN_DUP2, source, goal) for goal, source in enumerate(given)]
        try:
            if self._once:  # process 1 finds no file to write it to
                _SCORE.write_bytes(FIRST_VICTIM)
            # Not subprocess: it imports threading, whose handlers for fork would double the time of each checker's.
            self._process = os.posix_spawn(
                self._command[0], self._command, self._environment, file_actions=streams, setsigdef=_IGNORED
            )
        except OSError as error:
            raise Broken(f"cannot start {self._command[0]}: {error.strerror}") from error
        finally:
            if self._once:
                _SCORE.write_bytes(self._score)
            theirs.close()
            os.close(complain)
        try:
            if not self._readable(_START_SECONDS):
                raise Broken(f"the interpreter did not start within {_START_SECONDS:g} s")
            if not self._hear():
                lines = os.read(complaints, _MAX_COMPLAINT).decode("utf-8", "replace").strip().splitlines()
                raise Broken(lines[-1] if lines else "the sandbox ended at once, without a word")
            self._describe_layout()
        except Broken:
            self._bury(0.0)
            raise
        finally:
            os.close(complaints)

    def _describe_layout(self) -> None:
        try:
            self._control.send(self._layout)
        except OSError as error:
            raise Broken(f"the sandbox ended: {error.strerror}") from error

    def _bury(self, patience: float) -> None:
        """Wait for the end of the process, and kill it where it does not come.

        Where the worker may no longer send it signals, it dies with the worker.
        """
        ended = os.pidfd_open(self._process)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        try:
            if not poll.poll(1000 * patience):
                os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        except PermissionError:
            pass
        finally:
            os.close(ended)

    def _order_death(self) -> None:
        with contextlib.suppress(OSError):  # it has ended, which the next look finds out
            self._control.send(b"kill")

    def _readable(self, seconds: float) -> bool:
        ready = select.poll()
        ready.register(self._control, select.POLLIN)
        deadline = time.monotonic() + seconds
        return bool(ready.poll(max(0.0, 1000 * (deadline - time.monotonic()))))

    def _hear(self) -> bytes:
        try:
            return self._control.recv(_MAX_MESSAGE)
        except OSError:
            return b""
