"""What this machine gives a model: processor, threads, memory and the bandwidth of a read."""

from __future__ import annotations

import functools
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from codellm.system import cgroup
from codellm.system.cgroup import ROOT, read

_FEATURES = (
    *("pni", "ssse3", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "sve", "bf16"),
)
"""Instruction sets that inference uses, as Linux calls them (arch/x86/include/asm/cpufeatures.h,
arch/arm64/kernel/cpuinfo.c)."""
_NAMES = {"pni": "sse3", "asimd": "neon", "asimddp": "dotprod"}
"""Those that everybody else calls otherwise."""


def cpu_name(root: Path = ROOT) -> str:
    """The processor's name: from /proc/cpuinfo, else what the platform module knows."""
    return _cpu_field("model name", root) or platform.processor() or platform.machine()


def cpu_features(root: Path = ROOT) -> tuple[str, ...]:
    """Instruction sets that inference uses and this processor has: `avx2`, `avx512_bf16`, `neon`, …

    From /proc/cpuinfo; empty where there is none.
    """
    flags = (_cpu_field("flags", root) or _cpu_field("Features", root)).split()  # x86, Arm
    return tuple(_NAMES.get(flag, flag) for flag in _FEATURES if flag in flags)


def _cpu_field(name: str, root: Path) -> str:
    """A field of the first processor in /proc/cpuinfo, empty where there is none."""
    for line in read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def physical_cores() -> int | None:
    """Cores of the whole machine without hyper-threads, None where the system does not tell."""
    return psutil.cpu_count(logical=False)


def usable_threads() -> int:
    """Threads that may run at once, hyper-threads included: a container may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Physical cores that this process may use: within its CPU affinity and its cgroup's quota.

    Hyper-threads are left out: two of one core share the units that a matrix product is bound by.
    """
    return threads_within(usable_threads(), physical_cores(), cgroup.cpus())


def threads_within(allowed: int, cores: int | None, quota: float | None) -> int:
    """Threads that compute: at most those allowed, one a core, and whole processors of a quota; None bounds nothing."""
    return max(1, min(allowed, cores or allowed, allowed if quota is None else int(quota)))


def total_memory() -> int:
    """Bytes of main memory of the whole machine."""
    return int(psutil.virtual_memory().total)


def available_memory(root: Path = ROOT) -> int:
    """Bytes that can be allocated without swapping: within the machine's memory and the limits of its cgroups."""
    free = int(psutil.virtual_memory().available)
    left = cgroup.free_memory(root)
    return free if left is None else min(free, left)


def resident_memory() -> int:
    """Bytes of this process in main memory now."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """The most bytes that were ever resident in this process (VmHWM on Linux, else what is resident now)."""
    for line in read(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resident_memory()


@functools.cache
def read_bandwidth(threads: int, size: int = 256 << 20, rounds: int = 5) -> float:
    """Bytes per second that `threads` threads read from main memory: the best of `rounds` passes over `size` bytes.

    Decoding reads every weight once per token, so this bounds it. The buffer is larger than common last-level caches
    and each pass touches all of it, so caches do not help. The pass is a bitwise OR, which numpy computes with vector
    instructions and without the interpreter's lock.
    """
    words = np.ones(size // 8, np.uint64)
    parts = np.array_split(words, threads)
    return max(_pass([functools.partial(np.bitwise_or.reduce, part) for part in parts], size) for _ in range(rounds))


def _pass(jobs: list[Callable[[], object]], size: int) -> float:
    workers = [threading.Thread(target=job) for job in jobs]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return size / (time.perf_counter() - start)
