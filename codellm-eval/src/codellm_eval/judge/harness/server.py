"""Starts a sandboxed process for each sample; itself inside the sandbox, or what there is of one.

Over a SOCK_SEQPACKET socket at descriptor 0 it takes a request with the candidate's end of the channel, and answers how
the candidate ended once no process of the sample is left. Any message meanwhile, and the worker's end, mean that the
sample is to be killed. It never reads from the channel: no sample finds another one's program in its memory.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from . import imports, kernel, landlock, network, seccomp
from .init import own_score, prepare_namespaces, run_candidate
from .questions import Questions
from .usage import descendants, of_namespace
from .watch import Watch

COMMON = (
    "abc", "bisect", "collections", "copy", "dataclasses", "datetime", "enum", "functools", "hashlib", "heapq",
    "itertools", "json", "math", "operator", "re", "string", "typing",
)  # fmt: skip
"""Modules that programs often import: imported before the fork, they cost a sample nothing.

Not random and threading, nor what imports them: their handlers for fork would cost every sample half a millisecond.
"""
_SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
_HARNESS = 3
"""The descriptor of the folder from which this process imports the harness."""
_MAX_REQUEST = 1 << 16
_MAX_LAYOUT = 1 << 18
_WITH_SAME_RULES = 64
"""Samples at level C: rules take a millisecond and more to make, and hold the folder of each, though it is gone."""
_Request = dict[str, Any]


def serve_namespaces() -> None:
    """Serve level A: pid, mount and ipc namespaces for each sample, made here, and a network that none used before."""
    control, layout = _take_control(COMMON)
    calls = seccomp.program()
    for request, end, checker in _requests(control, layout):
        with end:  # nobody may wait for an answer from a program that could not start
            run = partial(_run_in_namespaces, end, request, checker, calls, control.fileno())
            status = kernel.call_as_process_1(run)
        if status.pop("network", True):
            network.renew()
        control.send(json.dumps(status).encode())


def serve_once() -> None:
    """Serve level B: one sample, as process 1 of namespaces that bubblewrap made."""
    control, layout = _take_control(())
    calls = seccomp.program()
    for request, end, checker in _requests(control, layout):
        with Questions(request["memory"], sockets=False) as questions:
            watch = Watch(request, of_namespace, [checker], scratch=_SCRATCH, questions=questions)
            status = run_candidate(end, request, lambda: kernel.filter_calls(calls), control.fileno(), watch)
        with suppress(ProcessLookupError):  # who is left keeps the channel open, and the checker waiting
            os.kill(-1, signal.SIGKILL)
        control.send(json.dumps(status).encode())
        control.recv(_MAX_REQUEST)  # an order that comes too late, or the end: unread, it would take the answer along
        return


def serve_alone() -> None:
    """Serve level C: no namespaces; Landlock and a filter that forbids other processes, sockets and signals."""
    imports.keep_listings()

    def confine(rules: int) -> None:
        landlock.restrict(rules)
        os.close(rules)
        kernel.filter_calls(seccomp.program(alone=True))

    rules, used = -1, 0

    def prepare(request: _Request) -> tuple[Callable[[], None], tuple[int, ...]]:
        nonlocal rules, used
        if used % _WITH_SAME_RULES == 0:
            if used:
                os.close(rules)
            rules = landlock.ruleset(request["readable"], ("/dev/null",))
        used += 1
        landlock.allow_writing(rules, request["folder"])
        return partial(confine, rules), (rules,)

    kernel.forbid_privileges()  # or nobody may listen to calls
    _serve_in_folders(prepare, listening=True)


def serve_unconfined() -> None:
    """Serve level D: limits on time and memory, and nothing else."""
    kernel.adopt_orphans()
    _serve_in_folders(lambda _: (lambda: None, ()), listening=False)


def _serve_in_folders(
    prepare: Callable[[_Request], tuple[Callable[[], None], tuple[int, ...]]], *, listening: bool
) -> None:
    """Candidates as children of this process, each in a folder that is removed after it.

    `prepare` gives what confines a candidate, and the descriptors that this needs in it; `listening` is whether they
    are asked about the memory that they share.
    """
    import subprocess  # here, because they import threading, whose handlers make each fork of level A dearer
    import tempfile

    kernel.die_with_parent()
    control, layout = _take_control(COMMON)
    questions = None
    with tempfile.TemporaryDirectory(prefix="codellm-judge-") as parent:
        tempfile.tempdir = None  # found out by now, and inherited by candidates, which have their own
        Path(parent).chmod(0o711)  # another user's candidate has to pass
        for request, end, checker in _requests(control, layout):
            folder = Path(parent, "scratch").resolve()
            folder.mkdir(0o700)
            if request["uid"] is not None:
                os.chown(folder, request["uid"], request["uid"])
            request["folder"] = os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
            confine, keep = prepare(request)
            if questions is not None:
                questions.forget()
            elif listening:
                questions = Questions(request["memory"], sockets=False)
            watch = Watch(request, descendants, [checker], folder=folder, questions=questions)
            status = run_candidate(end, request, confine, control.fileno(), watch, keep, score=own_score())
            _kill_orphans()
            # rm, because a program may nest folders deeper than shutil.rmtree recurses
            with subprocess.Popen(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL) as removal:
                if questions is not None:
                    questions.answer_until_end(removal.pid)
            control.send(json.dumps(status).encode())


def _kill_orphans() -> None:
    """End what a candidate left behind; it became ours when its parent died."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _take_control(modules: tuple[str, ...]) -> tuple[socket.socket, dict[str, Any]]:
    """The worker's socket, and what the worker says of the folders among which programs run."""
    control = socket.socket(fileno=os.dup(0))
    os.close(_HARNESS)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    for name in modules:
        importlib.import_module(name)
    for name in ("PYTHONHASHSEED", "PWD"):  # what the judge and bubblewrap set
        os.environ.pop(name, None)
    kernel.drop_bounding_capabilities()  # what this process holds it keeps, and no program that is started gains it
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    return control, json.loads(control.recv(_MAX_LAYOUT) or b"{}")


def _requests(control: socket.socket, layout: dict[str, Any]) -> Iterator[tuple[_Request, socket.socket, int]]:
    """Requests, each with the candidate's end of the channel, and the open `schedstat` of the checker at the other."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST, 2)
        if not data:
            return
        if descriptors:  # without one it is an order to kill what has ended by itself
            end, checker = descriptors
            yield {**layout, **json.loads(data)}, socket.socket(fileno=end), checker
            os.close(checker)


def _run_in_namespaces(
    end: socket.socket, request: _Request, checker: int, calls: bytes, orders: int
) -> dict[str, Any]:
    try:
        score = own_score()
        prepare_namespaces(request["scratch"], request["kept"], request["links"])
        with Questions(request["memory"], sockets=True) as questions:
            watch = Watch(request, of_namespace, [checker], scratch=_SCRATCH, questions=questions)
            status = run_candidate(end, request, lambda: kernel.filter_calls(calls), orders, watch, score=score)
        return {**status, "network": questions.sockets}
    except OSError as error:
        return {"broken": f"{type(error).__name__}: {error}"}
