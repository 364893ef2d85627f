"""Process 1 of a sample's namespaces: prepares them, starts the candidate, watches it and says how it ended.

It keeps what rights it has and cannot be looked into, so the candidate can neither end it nor speak in its place.
"""

from __future__ import annotations

import itertools
import os
import resource
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import kernel
from .candidate import answer_calls
from .network import Use

_READY = b"ready"
_MAX_SAID = 1024
_MANY_DESCRIPTORS = 4096
_TICK = 0.05
"""Seconds between looks for an excess."""
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")


def prepare_namespaces(scratch: dict[str, str], kept: Iterable[str], links: Iterable[tuple[str, str]]) -> None:
    """Mount what belongs to this sample alone: scratch folders by their mount options, and the view of processes.

    What lies in the scratch folders and is `kept` stays where it is: an interpreter below /tmp for instance, and the
    `links` that lead to it.
    """
    opened = {path: os.open(path, os.O_PATH) for path in kept}
    for place, options in scratch.items():
        kernel.mount("tmpfs", place, options)
    for path, descriptor in opened.items():
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        (Path(path) if folder else Path(path).parent).mkdir(parents=True, exist_ok=True)
        if not folder:
            Path(path).touch(0o444)
        kernel.bind(f"/proc/self/fd/{descriptor}", path)
        os.close(descriptor)
    for link, target in links:
        Path(link).parent.mkdir(parents=True, exist_ok=True)
        Path(link).symlink_to(target)
    kernel.mount("proc", "/proc")


def run_candidate(
    end: socket.socket,
    request: dict[str, Any],
    confine: Callable[[], None],
    orders: int,
    excess: Callable[[], str],
    keep: tuple[int, ...] = (),
    *,
    use: Use | None = None,
) -> dict[str, Any]:
    """Start the candidate and wait for its end, an excess that no limit of the kernel stops, or an order; how it ended.

    `confine` is called in the candidate, last before the program, and installs what holds for ever; until then there
    are the descriptors to `keep`. Something to read on `orders` ends the candidate, and so does what `excess` names.
    Calls that `use` is asked about wait until they are allowed here.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 does not get what it has no handler for
    kernel.set_dumpable(False)
    start = time.monotonic()
    prepared, tell = os.pipe()
    candidate = os.fork()
    if candidate == 0:
        try:
            end = _become_candidate(end, tell, request, confine, keep)
        except BaseException as error:
            os.write(tell, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        answer_calls(end)
    end.close()
    os.close(tell)
    status = _watch(
        candidate, orders, lambda: excess() or _excess_of_time(candidate, start, request["wall_seconds"]), use
    )
    said = os.read(prepared, _MAX_SAID)
    os.close(prepared)
    # Said and closed before the program began: a program cannot say it.
    return status if said == _READY or status["stopped"] else {"broken": said.decode("utf-8", "replace")}


def _become_candidate(
    end: socket.socket, tell: int, request: dict[str, Any], confine: Callable[[], None], keep: tuple[int, ...]
) -> socket.socket:
    """Keep the channel and nothing else, and say on `tell` that it worked."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kernel.set_dumpable(True)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    for first, last in itertools.pairwise((2, *sorted((end.fileno(), tell, *keep)), _MANY_DESCRIPTORS)):
        os.closerange(first + 1, last)
    os.chdir(request["folder"])
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(score, b"1000")  # whom the kernel ends first when the machine runs out of memory
    os.close(score)
    for name, value in request["resources"].items():
        # One second between SIGXCPU, which tells what happened, and SIGKILL, which cannot be ignored.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(getattr(resource, name), (value, hard))
    drop_rights(request["uid"])
    confine()
    os.write(tell, _READY)
    os.close(tell)
    return end


def drop_rights(uid: int | None) -> None:
    """Lose every capability for ever, and become `uid` where there is the right to: root is exempt from limits."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.drop_capabilities()
    kernel.forbid_privileges()
    kernel.set_dumpable(True)  # becoming another user undid this and the next
    kernel.die_with_parent()


def _watch(candidate: int, orders: int, excess: Callable[[], str], use: Use | None) -> dict[str, Any]:
    poll = select.poll()
    ended = os.pidfd_open(candidate)
    poll.register(ended, select.POLLIN)
    if orders >= 0:
        poll.register(orders, select.POLLIN)
    if use is not None and use.listener >= 0:
        poll.register(use.listener, select.POLLIN)
    stopped, look = "", time.monotonic() + _TICK
    while not stopped:
        ready = {descriptor for descriptor, _ in poll.poll(1000 * _TICK)}
        if ended in ready:
            break
        if use is not None and use.listener in ready:
            use.allow()
        if orders in ready:
            stopped = "killed"
        elif time.monotonic() >= look:  # however often it is asked for something
            _bury(candidate)
            stopped, look = excess(), time.monotonic() + _TICK
    os.close(ended)
    if stopped:
        os.kill(candidate, signal.SIGKILL)
    _, status, usage = os.wait4(candidate, 0)
    return {"status": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime, "stopped": stopped}


def _bury(candidate: int) -> None:
    """Collect the dead that were left to process 1."""
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == candidate:
                return
            os.waitpid(dead.si_pid, 0)
        except ChildProcessError:
            return


def _excess_of_time(candidate: int, start: float, limit: float) -> str:
    """The word time past `limit` seconds on a clock that stands still while the candidate waits for a processor."""
    over = time.monotonic() - start - limit
    return "time" if over > 0 and over > _seconds_waiting(candidate) else ""


def _seconds_waiting(process: int) -> float:
    """How long its main thread was ready to run and another process had the processor; 0 where the kernel counts not.

    The second field of schedstat, in nanoseconds (Documentation/scheduler/sched-stats.rst).
    """
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def excess_of_processes(memory: int, seconds: int) -> str:
    """Whether all processes of this namespace together are past a limit that the kernel keeps for each alone.

    The word memory for more bytes than `memory`, shared ones counted once; cpu for a second more than `seconds`, so
    that the kernel comes first where there is one process.
    """
    processes = [path for path in Path("/proc").iterdir() if path.name.isdecimal() and path.name != "1"]
    if sum(_cpu_seconds(process) for process in processes) > seconds + 1:
        return "cpu"
    if sum(_resident(process) for process in processes) <= memory:
        return ""
    return "memory" if sum(_share(process) for process in processes) > memory else ""


def _cpu_seconds(process: Path) -> float:
    """Of the process and of its children that it has collected: fields 14 to 17 of stat, in clock ticks."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    except (OSError, ValueError):
        return 0.0


def _resident(process: Path) -> int:
    try:
        return int((process / "statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _share(process: Path) -> int:
    """The proportional share, or all that is resident where that may not be read."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, ValueError, IndexError):
        return _resident(process)


def excess_of_disk(folder: Path, size: int, files: int) -> str:
    """The word disk when the files below `folder` are more than `files`, or larger together than `size` bytes."""
    folders = [folder]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except FileNotFoundError:
            continue
        except OSError:  # nested deeper than a path can name
            return "disk"
        files -= len(entries)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                size -= _size(entry)
        if files < 0 or size < 0:
            return "disk"
    return ""


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
