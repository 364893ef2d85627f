"""The look at a sample, every 50 ms, for what no limit of the kernel stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import disk, memory
from .questions import Questions
from .usage import Usage

_DISK = (64 << 20, 16384)
"""Bytes and files that a program may have in its folder, where no file system of its own limits them."""


class Watch:
    """Watch over the processes that `processes` lists, by the limits of a request, from now on.

    `beside` is as `Usage` has it; `folder` is the sample's own, where it lies on the machine's disk, `scratch` are
    folders in memory, and `questions` hear of shared memory.
    """

    def __init__(
        self,
        request: dict[str, Any],
        processes: Callable[[], list[int]],
        beside: Iterable[int] = (),
        *,
        folder: Path | None = None,
        scratch: Iterable[str] = (),
        questions: Questions | None = None,
    ) -> None:
        self._cpu: int = request["resources"]["RLIMIT_CPU"]
        self._wall: float = request["wall_seconds"]
        self._memory: int = request["memory"]
        self._largest_file: int = request["resources"]["RLIMIT_FSIZE"]
        self._folder = folder
        self._scratch = tuple(scratch)
        self.questions = questions
        self.usage = Usage(processes, beside)

    def excess(self) -> str:
        """What the sample has used too much of, all its processes together: cpu, time, memory, disk, or nothing."""
        processes = self.usage.look()
        if self.usage.cpu > self._cpu:
            return "cpu"
        if self.usage.clock > self._wall:
            return "time"
        if self._too_much_memory(processes):
            return "memory"
        if self._folder is not None and disk.more_than(*_DISK, self._folder, processes, self._largest_file):
            return "disk"
        return ""

    def _too_much_memory(self, processes: list[int]) -> bool:
        shared = 0
        if self.questions is not None:
            if self.questions.memory.look(processes):
                return True
            shared = self.questions.memory.size
        return memory.more_than(self._memory - shared, processes, self._scratch)
