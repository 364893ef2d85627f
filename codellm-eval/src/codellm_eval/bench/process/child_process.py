"""A process that measures: started, listened to, ended whatever it does."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, Self

import attrs

TAIL_LINES = 40
"""Lines of a process's stderr and stdout that are kept for the reason of its failure."""
TICK = 0.05
"""Seconds between two looks at the child's memory; one takes the parent about 20 microseconds."""


@attrs.define
class Deadline:
    """When a child must be done; `extend` begins the time anew."""

    seconds: float
    _begin: float = attrs.field(factory=time.monotonic)

    def extend(self) -> None:
        """Give it all its seconds from now on."""
        self._begin = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left; less than 0 once it has passed."""
        return self._begin + self.seconds - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether it has."""
        return self.left < 0


class ChildProcess:
    """Runs `module`, given `job` as a line of JSON. A context manager: leaving it ends the child and all it started."""

    def __init__(self, module: str, job: dict[str, Any]) -> None:
        self._stack = contextlib.ExitStack()
        events, writer = os.pipe()
        self.events: IO[bytes] = self._stack.enter_context(os.fdopen(events, "rb", buffering=0))
        with os.fdopen(writer, "wb"):
            # -P: a file in the current directory must not stand in for a module of that name
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(writer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the whole group
            )
        self._stack.callback(self._kill)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code says so later
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    @property
    def exit_code(self) -> int | None:
        """The code, negative for a signal; None while it runs."""
        return self._process.poll()

    def read(self, deadline: Deadline, tick: Callable[[int], None]) -> Iterator[tuple[IO[bytes], bytes]]:
        """What comes on `events` and `output`, until the child has ended and both are read.

        `tick` is called with the child's process id whenever something came, and every TICK seconds.

        Raises:
            TimeoutError: the deadline has passed.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.events, selectors.EVENT_READ)
            selector.register(self.output, selectors.EVENT_READ)
            while selector.get_map():
                # something that the child started may hold a pipe open after it: its own end counts, not the pipe's
                ended = self.exit_code is not None
                ready = selector.select(0 if ended else TICK)
                tick(self._process.pid)
                for key, _ in ready:
                    pipe: Any = key.fileobj
                    data = os.read(pipe.fileno(), 65536)
                    if data:
                        yield pipe, data
                    else:
                        selector.unregister(pipe)
                if ended and not ready:
                    return
                if deadline.passed:
                    raise TimeoutError
        # both pipes are closed, which a process does last, but not at the same moment as it ends
        try:
            self._process.wait(max(0.1, deadline.left))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error


@attrs.define
class Voice:
    """What a child says: events, a JSON object a line, and what it or a library in it prints."""

    phase: str = "start"
    _rest: bytes = b""
    _tail: collections.deque[str] = attrs.field(factory=lambda: collections.deque(maxlen=TAIL_LINES))

    def events(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The events that end in `data`, bytes of the event pipe.

        Raises:
            ValueError: a line is no JSON object.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError(f"{line[:60]!r} is no event")
            self.phase = event.get("phase", self.phase)
            yield event

    def note(self, data: bytes) -> None:
        """Take bytes of what it printed."""
        self._tail.extend(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())

    def death(self, code: int | None) -> str:
        """Why a child ended without saying so, with the exit code `code`."""
        last = self._tail[-1].strip()[:200] if self._tail else ""
        said = f"; it last printed: {last}" if last else ""
        if code is None or code >= 0:
            return f"its process ended with code {code} in the phase {self.phase!r}{said}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        memory = "; perhaps the memory ran out" if -code == signal.SIGKILL else ""
        return f"its process was killed by {name} in the phase {self.phase!r}{memory}{said}"

    def overdue(self, seconds: float) -> str:
        """Why a child was ended after so many."""
        return f"not done after {seconds:g} s, ended in the phase {self.phase!r}; raise --timeout"
