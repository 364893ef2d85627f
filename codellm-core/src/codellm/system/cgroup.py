"""The control groups of Linux that this process is in, and what they leave it: cgroups(7), versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
"""Where the kernel tells all this: the folder that holds its `proc` and `sys`."""


def folders(controller: str, root: Path = ROOT) -> Iterator[Path]:
    """The folders of the groups whose limits of `controller` hold for this process: its own and those above it.

    A container sees its own group as the root, so that folders on the way there may be missing.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or controller in controllers.split(","):  # version 2 names none
            highest = root / "sys/fs/cgroup" / controllers
            group = highest / path.strip("/")
            yield from (group, *(above for above in group.parents if above.is_relative_to(highest)))


def cpus(root: Path = ROOT) -> float | None:
    """Processors of the tightest quota, None where there is none."""
    quotas = [count for group in folders("cpu", root) if (count := _cpus(group)) is not None]
    return min(quotas, default=None)


def _cpus(group: Path) -> float | None:
    """Microseconds of processor time in a period, by microseconds of the period."""
    text = read(group / "cpu.max") or f"{read(group / 'cpu.cfs_quota_us')} {read(group / 'cpu.cfs_period_us')}"
    fields = text.split()
    if len(fields) != 2 or not all(field.isdecimal() and int(field) for field in fields):
        return None  # "max" and -1 stand for none
    return int(fields[0]) / int(fields[1])


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that the tightest limit still leaves, None where there is no limit.

    Pages of files count as free, since the system drops them first: a model that was read before must not keep itself
    from being loaded again.
    """
    left = [bytes for group in folders("memory", root) if (bytes := _left(group)) is not None]
    return min(left, default=None)


def _left(group: Path) -> int | None:
    for limit, usage, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),  # version 1; with the groups below it
    ):
        most, used = read(group / limit).strip(), read(group / usage).strip()
        if most.isdecimal() and used.isdecimal():  # "max" stands for none
            files = sum(_statistics(group, f"{prefix}inactive_file", f"{prefix}active_file"))
            return max(0, int(most) - max(0, int(used) - files))
    return None


def _statistics(group: Path, *names: str) -> Iterator[int]:
    """Bytes of what memory.stat tells under `names`."""
    for line in read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in names and value.isdecimal():
            yield int(value)


def read(path: Path) -> str:
    """A small file of the kernel, empty where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
