"""Each row in a process of its own: started, listened to, ended whatever it does."""

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

from codellm_eval.bench.job import Job
from codellm_eval.bench.record import Gap, Record, make_converter, merge
from codellm_eval.bench.resident import Resident, resident

TAIL_LINES = 40
"""Lines of a process's stderr and stdout that are kept for the reason of its failure."""
TICK = 0.05
"""Seconds between two looks at the child's memory; one takes the parent about 20 microseconds."""


class RowProcess:
    """A child that measures one row. A context manager: leaving it ends the child and all it started."""

    def __init__(self, job: Job) -> None:
        self._stack = contextlib.ExitStack()
        events, writer = os.pipe()
        self.events: IO[bytes] = self._stack.enter_context(os.fdopen(events, "rb", buffering=0))
        with os.fdopen(writer, "wb"):
            # -P: a file in the current directory must not stand in for a module of that name
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "codellm_eval.bench.child", str(writer)],
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
            self._process.stdin.write(json.dumps(make_converter().unstructure(job)).encode() + b"\n")
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

    def read(self, deadline: float, tick: Callable[[int], None]) -> Iterator[tuple[IO[bytes], bytes]]:
        """What comes on `events` and `output`, until the child has ended and both are read.

        `tick` is called with the child's process id whenever something came, and every TICK seconds.

        Raises:
            TimeoutError: `time.monotonic()` passed `deadline`.
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
                if time.monotonic() > deadline:
                    raise TimeoutError
        # both pipes are closed, which a process does last, but not at the same moment as it ends
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error


@attrs.define
class Listener:
    """What a child has told so far."""

    record: Record
    on_phase: Callable[[str], None]
    phase: str = "start"
    ended: bool = False
    held: Resident | None = None
    """The most that the child held until its speed was measured."""
    _rest: bytes = b""
    _tail: collections.deque[str] = attrs.field(factory=lambda: collections.deque(maxlen=TAIL_LINES))
    _converter: Any = attrs.field(factory=make_converter)

    def hear(self, data: bytes) -> None:
        """Take bytes of the event pipe."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def note(self, data: bytes) -> None:
        """Take bytes of what the child, or a library in it, printed."""
        self._tail.extend(line for line in data.decode("utf-8", "replace").splitlines() if line.strip())

    def look(self, pid: int) -> None:
        """See what the child holds, as long as that is asked."""
        if self.record.host_peak is None and (held := resident(pid)) is not None:
            self.held = held.most(self.held)

    def last_line(self) -> str:
        """The last thing that was printed, cut to one line of a note."""
        return self._tail[-1].strip()[:200] if self._tail else ""

    def _take(self, event: dict[str, Any]) -> None:
        if "phase" in event:
            self.phase = event["phase"]
            self.on_phase(self.phase)
        elif "fields" in event:
            self.record = merge(self.record, event["fields"], self._converter)
        elif "gap" in event:
            self.record = self.record.with_gap(event["gap"], Gap(event["cell"], event["note"]))
        elif "error" in event:
            self.record = self.record.failed(event["error"])
            self.ended = True
        elif "done" in event:
            self.ended = True


def run_row(job: Job, timeout: float, on_phase: Callable[[str], None] = lambda phase: None) -> Record:
    """Measure one row, for at most `timeout` seconds; the Record says why where it failed.

    What it needs on disk is made by a process before it. KeyboardInterrupt passes through, after the child was ended.
    """
    start = time.monotonic()
    record = Record(row=job.row, model=job.model)
    for stage in ("prepare", "measure"):
        if record.error is None:
            record = _run_stage(attrs.evolve(job, stage=stage), record, start + timeout, timeout, on_phase)
    return attrs.evolve(record, seconds=time.monotonic() - start)


def _run_stage(job: Job, record: Record, deadline: float, timeout: float, on_phase: Callable[[str], None]) -> Record:
    listener = Listener(record, on_phase)
    with RowProcess(job) as child:
        try:
            for pipe, data in child.read(deadline, listener.look):
                (listener.hear if pipe is child.events else listener.note)(data)
            reason = None if listener.ended else _death(child.exit_code, listener)
        except TimeoutError:
            reason = f"not done after {timeout:g} s, ended in the phase {listener.phase!r}; raise --timeout"
        except (ValueError, TypeError) as error:
            reason = f"the row's process reported something unreadable: {error}"
    record = listener.record.at_least(listener.held) if job.stage == "measure" else listener.record
    return record if reason is None else record.failed(reason)


def _death(code: int | None, listener: Listener) -> str:
    """Why a child ended without saying so."""
    last = listener.last_line()
    said = f"; it last printed: {last}" if last else ""
    if code is None or code >= 0:
        return f"its process ended with code {code} in the phase {listener.phase!r}{said}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    memory = "; perhaps the memory ran out" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name} in the phase {listener.phase!r}{memory}{said}"
