"""How long the tasks of a sample have run, and how long they were kept from running: by looks at its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_LONGEST = 1 << 12


def of_namespace() -> list[int]:
    """The processes of this pid namespace but number 1, parents before their children."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal() and name != "1")  # noqa: PTH208 - half the time


def descendants() -> list[int]:
    """The processes below this one, parents before their children."""
    found, parents = [], [os.getpid()]
    while parents:
        children = Path(f"/proc/{(parent := parents.pop())}/task/{parent}/children")
        with_threads = [children] if parent == os.getpid() else children.parents[1].glob("*/children")
        try:
            parents += [int(child) for path in with_threads for child in path.read_text("ascii").split()]
        except OSError:  # it has ended
            continue
        found.append(parent)
    return sorted(found[1:])


class Usage:
    """Usage of all processes that `processes` lists at each look.

    `beside` are open `schedstat` files of processes that the sample waits for: of these, only the delays count. `proc`
    is where the kernel tells of processes.
    """

    def __init__(self, processes: Callable[[], list[int]], beside: Iterable[int] = (), proc: str = "/proc") -> None:
        self._processes = processes
        self._proc = proc
        self._beside = tuple(beside)
        self._delays = self._all_delays([])
        self._collected = 0.0
        self._counted = 0.0
        self._lost = 0.0
        self._start = self._looked = time.monotonic()
        self._delay = 0.0

    @property
    def cpu(self) -> float:
        """Seconds of processor time of every task that was there, as far as looks tell: never more than there were."""
        return self._counted + self._lost

    @property
    def clock(self) -> float:
        """Seconds since the beginning, on a clock that stands still while the sample waits for a processor."""
        return self._looked - self._start - self._delay

    def collect(self, seconds: float) -> None:
        """Add the processor time of a process that this one has collected, and of those that it had collected."""
        self._collected += seconds

    def look(self) -> list[int]:
        """Count what there is now; the processes that were found."""
        processes = self._processes()
        counted = self._count(processes)
        if counted < self._counted:
            # One may have gone from where it was to be counted to where that was done: then it is in its parent's.
            counted = max(counted, self._count(self._processes()))
        # The rest went with processes that nobody waited for.
        self._lost += max(0.0, self._counted - counted)
        self._counted = counted
        self._wait(processes)
        return processes

    def _count(self, processes: list[int]) -> float:
        # Parents first: a child that is collected in between is missed, not counted twice.
        return self._collected + sum(_cpu_seconds(f"{self._proc}/{process}") for process in processes)

    def _wait(self, processes: list[int]) -> None:
        """Add how long tasks were ready to run since the last look and others had the processors."""
        delays = self._all_delays(processes)
        grown = 0.0
        for task, seconds in delays.items():
            before = self._delays.get(task, 0.0)
            grown += seconds - before if seconds >= before else seconds
        now = time.monotonic()
        # Not more than the time that went by: several tasks wait at the same time.
        self._delay += min(grown, now - self._looked)
        self._delays, self._looked = delays, now

    def _all_delays(self, processes: list[int]) -> dict[int, float]:
        """Delays by the number of the task, or the negative one of a descriptor."""
        delays = {task: seconds for each in processes for task, seconds in _delays(f"{self._proc}/{each}")}
        for file in self._beside:
            with suppress(OSError):  # it has ended
                delays[-file] = _delay(os.pread(file, _LONGEST, 0))
        return delays


def _cpu_seconds(process: str) -> float:
    """Seconds of the process of a folder and of its collected children: fields 14 to 17 of stat, in clock ticks."""
    try:
        fields = _read(f"{process}/stat").rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    except (OSError, ValueError):
        return 0.0


def _delays(process: str) -> list[tuple[int, float]]:
    """The threads of the process of a folder, each with how long it was ready to run and did not."""
    found = []
    try:
        for task in os.listdir(f"{process}/task"):  # noqa: PTH208 - as above
            found.append((int(task), _delay(_read(f"{process}/task/{task}/schedstat"))))
    except OSError:
        pass  # it has ended
    return found


def _delay(schedstat: bytes) -> float:
    """The second field, in nanoseconds (Documentation/scheduler/sched-stats.rst); 0 where the kernel counts not."""
    fields = schedstat.split()
    return int(fields[1]) / 1e9 if len(fields) > 1 else 0.0


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)
