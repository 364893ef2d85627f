"""The memory that a sample's processes share: asked for before it is there, because no later figure tells of it.

What is mapped shared without a file belongs to the kernel's own file system. Its pages stay when a process drops or
unmaps them, as long as any part is mapped by anyone, and count in no process then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path


class SharedMemory:
    """What was granted of at most `limit` bytes; `grant` lets who asked by a number go on."""

    def __init__(self, limit: int, grant: Callable[[int], None]) -> None:
        self._limit, self._go_on = limit, grant
        self.size = 0
        """Bytes that were mapped at the last look and may be in use."""
        self._new: list[int] = []
        self._settled: list[int] = []
        self._waiting: deque[tuple[int, int]] = deque()

    def ask(self, number: int, length: int) -> None:
        """Grant it, or let it wait until a look finds room."""
        self._waiting.append((number, length))
        if len(self._waiting) == 1:
            self._grant()

    def look(self, processes: Iterable[int]) -> bool:
        """Count what is still mapped; whether somebody asks for more than there may be."""
        if not (self._waiting or self._new or self._settled):
            return False
        # Nobody tells which ones are left: as many, and the largest. A new one may not be mapped yet.
        living = len({each for process in processes for each in _mapped(process)})
        self._settled = sorted(self._settled, reverse=True)[:living]
        self.size = sum(self._settled)
        fresh, self._new = self._new, []
        self._settled += fresh
        return not self._grant() and not fresh and not self._new

    def _grant(self) -> bool:
        """Answer those who wait, in their order; whether nobody is left."""
        while self._waiting:
            number, length = self._waiting[0]
            # Larger than all, the kernel refuses it itself: it is more than the process may have.
            if length <= self._limit:
                if sum(self._settled) + sum(self._new) + length > self._limit:
                    return False
                self._new.append(length)
            self._waiting.popleft()
            self._go_on(number)
        return True


def _mapped(process: int) -> set[tuple[str, str]]:
    """Device and inode number of all that a process has mapped shared."""
    try:
        lines = Path(f"/proc/{process}/maps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    fields = (line.split(maxsplit=5) for line in lines)
    return {(device, inode) for _, rights, _, device, inode, *_ in fields if rights.endswith("s")}
