"""Another library in a process of its own: what cannot be interrupted, may end the process, or changes it for good."""

from __future__ import annotations

import collections
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs


@attrs.frozen
class Ending:
    """How a child ended: its exit code, below 0 for a signal, and the last lines that it printed."""

    code: int
    lines: Sequence[str]

    @property
    def signal(self) -> str:
        """The name of the signal that ended it; empty where none did."""
        return signal.Signals(-self.code).name if self.code < 0 else ""

    @property
    def last(self) -> str:
        """The last line that says something."""
        return next((line for line in reversed(self.lines) if line), "it gave no reason")


class Child:
    """`python -m MODULE ARGUMENTS…`, whose output is read line by line.

    `environment` comes on top of this process's own; `folder` is where it runs, if not here.
    """

    def __init__(
        self,
        module: str,
        *arguments: str | Path | int,
        environment: Mapping[str, str] = MappingProxyType({}),
        folder: Path | None = None,
    ) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=20)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,  # held open: the child ends when it closes
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches this process only, which then ends the child and removes the file
            env=os.environ | environment,
            cwd=folder,
            encoding="utf-8",
            errors="replace",
        )

    def lines(self) -> Iterator[str]:
        """What it prints, to its end."""
        assert self._process.stdout is not None  # a pipe was asked for
        for line in self._process.stdout:
            self._lines.append(line.strip())
            yield line

    def tell(self, line: str) -> None:
        """Write it a line; one that has ended hears nothing."""
        assert self._process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def ask(self, line: str) -> str:
        """Write it a line and read the JSON object that it answers with, a line too; empty where it ends instead."""
        self.tell(line)
        assert self._process.stdout is not None  # a pipe was asked for
        for answer in self._process.stdout:
            if answer.startswith("{"):
                return answer
            self._lines.append(answer.strip())  # what ends it says why
        return ""

    def wait(self) -> Ending:
        """Wait for its end."""
        return Ending(self._process.wait(), tuple(self._lines))

    def end(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # of a line that it did not read to its end
                    pipe.close()


@contextlib.contextmanager
def running(
    module: str,
    *arguments: str | Path | int,
    environment: Mapping[str, str] = MappingProxyType({}),
    folder: Path | None = None,
) -> Iterator[Child]:
    """A child for the time of the block: it ends with the block, however that ends."""
    child = Child(module, *arguments, environment=environment, folder=folder)
    try:
        yield child
    finally:
        child.end()


def end_with_parent(destination: Path | None) -> None:
    """In the child: end, and remove a file that is half-written, when the process that started this one is gone.

    The parent holds the other end of stdin: its end of file is the parent's end, however that came about.
    """

    def wait() -> None:
        sys.stdin.read()
        if destination is not None:
            with contextlib.suppress(OSError):
                destination.unlink()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def limit(memory: int, seconds: int | None = None) -> None:
    """In the child: bound its own memory (bytes) and processor time, let it write no file, and leave no core dump.

    Too much memory is refused, which most libraries end with SIGABRT; too much time ends it with SIGXCPU. Where
    `seconds` is None, whoever started it watches its time.
    """
    bounds = {resource.RLIMIT_DATA: memory, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
    if seconds is not None:
        bounds[resource.RLIMIT_CPU] = seconds
    for kind, bound in bounds.items():
        most = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (bound if most == resource.RLIM_INFINITY else min(bound, most), most))
