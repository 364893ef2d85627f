"""A look at a sandbox from the inside: a program that tries what no program may."""

from __future__ import annotations

import os
import socket

from codellm_eval.errors import SandboxError
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.judge import judge
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem

_LIMITS = Limits(cpu_seconds=10, wall_seconds=60.0)

_PROGRAM = """
def holes(judge, port):
    import ctypes, errno, math, os, socket, tempfile, typing
    libc, found = ctypes.CDLL(None, use_errno=True), []

    def attempt(what, act, *args):
        try:
            act(*args)
        except OSError:
            return
        found.append(what)

    def trace():
        if libc.ptrace(0x4206, ctypes.c_long(judge), ctypes.c_long(0), ctypes.c_long(0)) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def unshare():
        if libc.unshare(0x10000000) < 0:
            raise OSError(ctypes.get_errno(), "unshare")

    attempt("reads the machine's files", open, "/etc/passwd")
    attempt("reads the judge's environment", open, f"/proc/{judge}/environ")
    attempt("writes outside of its scratch space", open, "/usr/codellm-probe", "w")
    attempt("writes outside of its scratch space", open, "/codellm-probe", "w")
    attempt("sends signals to the judge", os.kill, judge, 0)
    attempt("traces the judge", trace)
    attempt("makes user namespaces", unshare)
    attempt("reaches the machine's network", lambda: socket.create_connection(("127.0.0.1", port), 5).close())
    if set(os.environ) - {"PATH", "HOME", "LANG", "LC_CTYPE", "TMPDIR"}:
        found.append("sees an environment")
    if libc.prctl(39, 0, 0, 0, 0) != 1:
        found.append("gains rights from set-user-id programs")
    if libc.prctl(21, 0, 0, 0, 0) != 2 or libc.personality(ctypes.c_ulong(0xFFFFFFFF)) != -1:
        found.append("makes any system call")
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * math.isqrt(16))
    return found
"""
_TEST = """
def check(candidate):
    found = candidate({judge}, {port})
    assert found == [], "a program " + ", ".join(found)
"""


def probe(sandbox: Sandbox) -> str | None:
    """What keeps programs from running in this sandbox, or what it fails to keep from them; None when nothing does.

    A sandbox also has to know a right program from a wrong one: each worker begins with one of both.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        test = _TEST.format(judge=os.getpid(), port=listener.getsockname()[1])
        problem = Problem("probe", "", "holes", "def holes(judge, port):\n    pass\n", test)
        try:
            verdict = judge(problem, _PROGRAM, sandbox=sandbox, limits=_LIMITS)
        except SandboxError as error:
            return str(error)
    return None if verdict.passed else f"{verdict.outcome} {verdict.message}"
