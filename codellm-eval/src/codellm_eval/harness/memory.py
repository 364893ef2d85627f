"""How much memory the processes of a sample hold together."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from pathlib import Path

_PAGE = resource.getpagesize()


def more_than(limit: int, processes: Iterable[int]) -> bool:
    """Whether the processes hold more than `limit` bytes, shared ones counted once."""
    processes = tuple(processes)
    if sum(map(_resident, processes)) <= limit:
        return False
    return sum(map(_share, processes)) > limit


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _share(process: int) -> int:
    """The proportional share, or all that is resident where that may not be read."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, ValueError, IndexError):
        return _resident(process)
