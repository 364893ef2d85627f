"""Whether model-written code can and may run here."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import attrs

from codellm_eval.bubblewrap import Limits, Sandbox
from codellm_eval.errors import CodeExecutionError, SandboxError
from codellm_eval.judge import run_program

INSTALL = "apt-get install bubblewrap"
ALLOW_VARIABLE = "HF_ALLOW_CODE_EVAL"
_KERNEL_SWITCHES = {"kernel.unprivileged_userns_clone": "1", "kernel.apparmor_restrict_unprivileged_userns": "0"}
"""What keeps an ordinary user from making a user namespace on Debian and Ubuntu, and the value that allows it."""
PERMISSION = f"--allow-code-execution or {ALLOW_VARIABLE}=1"


@attrs.frozen
class SandboxStatus:
    """Whether code can be judged here; `reason` and `remedy` say why not and which command mends it."""

    sandbox: Sandbox | None
    reason: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether it can."""
        return self.sandbox is not None

    def require(self) -> Sandbox:
        """The sandbox.

        Raises:
            SandboxError: there is none; the message names the remedy.
        """
        if self.sandbox is None:
            raise SandboxError(f"no sandbox: {self.reason}; {self.remedy}")
        return self.sandbox


@functools.cache
def sandbox_status() -> SandboxStatus:
    """Find bubblewrap and try it: what is installed may still be forbidden here, in a container for instance."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return SandboxStatus(None, "bubblewrap is not installed", INSTALL)
    complaint = ""
    # Root outside a user namespace comes first: only there can the child get a user id of its own.
    for as_root in (True, False) if os.geteuid() == 0 else (False,):
        sandbox = Sandbox(bwrap, as_root)
        problem = probe(sandbox)
        if problem is None:
            return SandboxStatus(sandbox)
        complaint = problem
    return SandboxStatus(None, complaint, _remedy(complaint))


_PROBE = "import math, typing\ndef f():\n    return math.isqrt(4)\n"
"""Needs the standard library, its Python files and its compiled ones."""


def probe(sandbox: Sandbox) -> str | None:
    """What keeps this sandbox from running a right and a wrong program rightly; None when nothing does."""
    limits = Limits.of(5)
    try:
        right, wrong = (
            run_program(_PROBE, f"def check(f):\n    assert f() == {answer}\n", "f", sandbox, limits)
            for answer in (2, 3)
        )
    except SandboxError as error:
        return str(error)
    if right.passed and not wrong.passed:
        return None
    found = f"{right.outcome} {right.message}".strip()
    return f"the sandbox judged a right program {found!r} and a wrong one {wrong.outcome!r}"


def require_permission(allowed: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Let model-written code run only where the user said so.

    Raises:
        CodeExecutionError: neither `allowed` nor HF_ALLOW_CODE_EVAL=1.
    """
    if not code_allowed(allowed, environment):
        raise CodeExecutionError(f"this runs code that a model wrote; allow it with {PERMISSION}")


def code_allowed(flag: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user allowed model-written code to run, by the flag or as in the `evaluate` library."""
    return flag or environment.get(ALLOW_VARIABLE) == "1"


def _remedy(complaint: str) -> str:
    """The command that most likely mends what bubblewrap complained of."""
    if "Unknown option" in complaint:
        return f"this needs bubblewrap 0.8 or later: {INSTALL}"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "start the container with --cap-add SYS_ADMIN --security-opt seccomp=unconfined"
    for switch, wanted in _KERNEL_SWITCHES.items():
        try:
            value = Path("/proc/sys", switch.replace(".", "/")).read_text("ascii").strip()
        except OSError:
            continue
        if value != wanted:
            return f"sysctl -w {switch}={wanted}"
    return "run as root, or allow user namespaces for bwrap"
