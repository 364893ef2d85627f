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
from .watch import Watch

FIRST_VICTIM = b"1000"
"""The score of whom the kernel ends first when the machine runs out of memory."""
_READY = b"ready"
_MAX_SAID = 1024
_MANY_DESCRIPTORS = 4096
_TICK = 0.05
"""Seconds between looks for an excess."""


def prepare_namespaces(scratch: dict[str, str], kept: Iterable[str], links: Iterable[tuple[str, str]]) -> None:
    """Mount what belongs to this sample alone: scratch folders by their mount options, and the view of processes.

    What lies in the scratch folders and is `kept` stays where it is: an interpreter below /tmp for instance, and the
    `links` that lead to it. The view of processes is read-only: no program may change its score for the end of memory.
    """
    opened = {path: os.open(path, os.O_PATH) for path in kept}
    for target, options in scratch.items():
        kernel.mount("tmpfs", target, options)
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
    watch: Watch,
    keep: tuple[int, ...] = (),
    *,
    score: int = -1,
) -> dict[str, Any]:
    """Start the candidate and wait for its end, an excess that no limit of the kernel stops, or an order; how it ended.

    `confine` is called in the candidate, last before the program, and installs what holds for ever; until then there
    are the descriptors to `keep`. Something to read on `orders` ends the candidate, and so does an excess that `watch`
    finds. `score` is from `own_score`.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 does not get what it has no handler for
    kernel.set_dumpable(False)
    prepared, tell = os.pipe()
    candidate = _fork_first_victim(score)
    if candidate == 0:
        try:
            end = _become_candidate(end, tell, request, confine, keep)
        except BaseException as error:
            os.write(tell, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        answer_calls(end)
    end.close()
    os.close(tell)
    status = _wait(candidate, orders, watch)
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
    for name, value in request["resources"].items():
        # One second between SIGXCPU, which tells what happened, and SIGKILL, which cannot be ignored.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(getattr(resource, name), (value, hard))
    drop_rights(request["uid"])
    confine()
    os.write(tell, _READY)
    os.close(tell)
    return end


def own_score() -> int:
    """The open file of what the kernel thinks of ending this process."""
    kernel.set_dumpable(True)  # or only root may write it; no candidate is there yet
    return os.open("/proc/self/oom_score_adj", os.O_RDWR)


def _fork_first_victim(score: int) -> int:
    """Fork a child that the kernel ends first when the machine runs out of memory.

    It inherits its score and finds no file to write another one to. Where `score` is -1, this process inherited it too.
    """
    if score < 0:
        return os.fork()
    own = os.read(score, _MAX_SAID)
    os.write(score, FIRST_VICTIM)
    child = os.fork()
    if child:
        os.write(score, own)
        os.close(score)
    return child


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


def _wait(candidate: int, orders: int, watch: Watch) -> dict[str, Any]:
    poll = select.poll()
    ended = os.pidfd_open(candidate)
    poll.register(ended, select.POLLIN)
    if orders >= 0:
        poll.register(orders, select.POLLIN)
    questions = watch.questions
    if questions is not None and questions.listener >= 0:
        poll.register(questions.listener, select.POLLIN)
    stopped, look = "", time.monotonic() + _TICK
    while not stopped:
        ready = {descriptor for descriptor, _ in poll.poll(1000 * _TICK)}
        if ended in ready:
            break
        if questions is not None and questions.listener in ready:
            questions.answer()
        if orders in ready:
            stopped = "killed"
        elif time.monotonic() >= look:  # however often it is asked for something
            watch.usage.collect(_bury(candidate))
            stopped, look = watch.excess(), time.monotonic() + _TICK
    os.close(ended)
    if stopped:
        os.kill(candidate, signal.SIGKILL)
    _, status, usage = os.wait4(candidate, 0)
    return {"status": os.waitstatus_to_exitcode(status), "cpu": _seconds(usage), "stopped": stopped}


def _bury(candidate: int) -> float:
    """Collect the dead that were left to process 1; the seconds of processor time that they and theirs took."""
    seconds = 0.0
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == candidate:
                return seconds
            seconds += _seconds(os.wait4(dead.si_pid, 0)[2])
        except ChildProcessError:
            return seconds


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
