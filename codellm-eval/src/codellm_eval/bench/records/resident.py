"""What a process holds in main memory, private and file-backed apart: two things that a laptop pays for differently."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

_FIELD = re.compile(r"^(Rss\w+):\s+(\d+) kB$", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Resident:
    """Bytes in main memory (Linux, proc_pid_status(5))."""

    anonymous: int
    """RssAnon: private to the process. Keys and values, repacked weights, buffers, Python's objects."""
    file: int
    """RssFile and RssShmem: pages of mapped files, which the system drops and reads again where memory is short."""

    def most(self, other: Resident | None) -> Resident:
        """The greater of each."""
        if other is None:
            return self
        return Resident(anonymous=max(self.anonymous, other.anonymous), file=max(self.file, other.file))


def resident(pid: int | str = "self") -> Resident | None:
    """What the process `pid` holds now; None where it has ended, or the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = {name: int(kilobytes) * 1024 for name, kilobytes in _FIELD.findall(text)}
    if "RssAnon" not in found:
        return None
    return Resident(anonymous=found["RssAnon"], file=found.get("RssFile", 0) + found.get("RssShmem", 0))
