"""The judge's end of a worker: starts it, sends jobs, takes verdicts."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from codellm_eval.judge.interpreter import ENVIRONMENT, command
from codellm_eval.judge.isolation import HARNESS, Sandbox
from codellm_eval.judge.limits import Limits

_PATIENCE = 30.0
"""Seconds for a worker to end what it started."""
_PIECE = 1 << 16


class WorkerProcess:
    """A worker that runs. Messages are JSON after four bytes of length, as `harness.worker` has it."""

    def __init__(self, sandbox: Sandbox, limits: Limits) -> None:
        # A session of its own: Ctrl-C is for the judge, which ends its workers in order.
        self._process = subprocess.Popen(
            command(str(HARNESS.parent), "worker", "main"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            start_new_session=True,
            bufsize=0,
        )
        self._data = bytearray()
        self.send({"sandbox": sandbox.for_worker(), "limits": limits.for_worker()})

    def fileno(self) -> int:
        """Descriptor that is readable when there is a message, or the worker has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a worker that has ended tells so where messages are received."""
        assert self._process.stdin is not None
        data = json.dumps(message).encode()
        view = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while view:
                view = view[os.write(self._process.stdin.fileno(), view) :]
        except BrokenPipeError:
            pass

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have come, none or several; None when the worker has ended."""
        piece = os.read(self.fileno(), _PIECE)
        if not piece:
            return None
        self._data += piece
        messages = []
        while len(self._data) >= 4 and len(self._data) >= 4 + (size := int.from_bytes(self._data[:4], "big")):
            messages.append(json.loads(self._data[4 : 4 + size]))
            del self._data[: 4 + size]
        return messages

    def close(self) -> None:
        """End the worker and everything that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
