"""How much memory a sample holds, wherever it lies: its processes, files in memory, the buffers of its sockets.

What its processes share without a file is in `shared_memory`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

with socket.socket(socket.AF_UNIX) as _one:
    _BUFFER = _one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    """Bytes that a socket may have sent and nobody taken."""
_NETWORK = Path("/proc/net")
_FEW_SOCKETS = 16
"""What their buffers hold is no matter, and the kernel takes long to list them."""


def more_than(limit: int, processes: Iterable[int], scratch: Iterable[str]) -> bool:
    """Whether the processes, the `scratch` folders and all sockets of this network hold more than `limit` bytes
    together; what is shared is counted once.
    """
    processes = tuple(processes)
    limit -= sum(map(_used, scratch)) + _buffers()
    if sum(map(_resident, processes)) <= limit:
        return False
    return sum(map(_share, processes)) > limit


def _used(folder: str) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _resident(process: int) -> int:
    """Resident memory without what is shared without a file, or in one in memory: that is counted where it is made."""
    return _fields(process, "status", {"RssAnon:", "RssFile:", "VmSwap:"})


def _share(process: int) -> int:
    """The proportional share of the same, or all of it where that may not be read."""
    return _fields(process, "smaps_rollup", {"Pss_Anon:", "Pss_File:", "SwapPss:"}) or _resident(process)


def _fields(process: int, file: str, names: set[str]) -> int:
    try:
        lines = Path(f"/proc/{process}/{file}").read_text("utf-8", "replace").splitlines()
    except OSError:  # it has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.split(maxsplit=1)[:1] and line.split()[0] in names)


def _buffers() -> int:
    """What sockets of this network may hold: as much as a socket may have sent by default, and TCP what it queues."""
    try:
        sockets = int((_NETWORK / "sockstat").read_text("ascii").split()[2])
    except (OSError, ValueError, IndexError):
        return 0
    if sockets <= _FEW_SOCKETS:
        return 0
    return sockets * _BUFFER + _queued("tcp") + _queued("tcp6")


def _queued(protocol: str) -> int:
    """Bytes of all its sockets, those that are closed too: the fifth column, sent and received in hexadecimal."""
    try:
        lines = (_NETWORK / protocol).read_text("ascii").splitlines()[1:]
    except OSError:
        return 0
    return sum(int(part, 16) for line in lines for part in line.split()[4].split(":"))
