"""Whether and how model-written code can and may run here: the first level of isolation that proves itself."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from codellm.errors import InvalidValueError
from codellm.finding import Finding
from codellm_eval.errors import CodeExecutionError, SandboxError
from codellm_eval.judge import bubblewrap, isolation
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.probe import probe
from codellm_eval.judge.view import view

INSTALL = "apt-get install bubblewrap"
LEVELS_VARIABLE = "CODELLM_ISOLATION"
_SANDBOXED = "ABC"
ALLOW_VARIABLE = "HF_ALLOW_CODE_EVAL"
PERMISSION = f"--allow-code-execution or {ALLOW_VARIABLE}=1"
LEVELS = {
    "A": "bubblewrap, with namespaces for each program made by a server in it",
    "B": "bubblewrap, started for each program",
    "C": "Landlock and a filter of system calls; programs may not start others",
    "D": "none",
}
_KERNEL_SWITCHES = {"kernel.unprivileged_userns_clone": "1", "kernel.apparmor_restrict_unprivileged_userns": "0"}
"""What keeps an ordinary user from making a user namespace on Debian and Ubuntu, and the value that allows it."""
_CONTAINER = 'run it in a Linux container: docker run --rm -it -v "$PWD":/here -w /here python:3.12 bash'


@attrs.frozen
class SandboxStatus:
    """Whether code can be judged here; `reason` and `remedy` say why not, or not better, and which command mends it."""

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

    @property
    def finding(self) -> Finding:
        """What the doctor says of it."""
        if self.sandbox is None:
            return Finding(topic="sandbox", value=f"none: {self.reason}", ok=False, remedy=self.remedy)
        value = f"level {self.sandbox.level} of A to C, code runs as {self.sandbox.user}"
        if self.reason:  # a level that works is no fault, but what keeps from a better one is worth telling
            value += f"; no better one: {self.reason}"
        return Finding(topic="sandbox", value=value, remedy=self.remedy)


def sandbox_status() -> SandboxStatus:
    """The strongest level of isolation that works here, of those that CODELLM_ISOLATION names."""
    return find_sandbox(os.environ.get(LEVELS_VARIABLE) or _SANDBOXED)


@functools.cache
def find_sandbox(levels: str) -> SandboxStatus:
    """Try `levels` in their order: what is installed may still be forbidden here, in a container for instance.

    Raises:
        InvalidValueError: a letter is no level that isolates.
    """
    if not set(levels) <= set(_SANDBOXED):
        raise InvalidValueError(f"{LEVELS_VARIABLE} takes letters of {_SANDBOXED}, for example A, not {levels!r}")
    if not sys.platform.startswith("linux"):
        return SandboxStatus(None, f"programs cannot be isolated on {sys.platform}", _CONTAINER)
    try:
        view()
    except SandboxError as error:
        return SandboxStatus(None, str(error), "mend it")
    reason, remedy = "", ""
    for ready, make in _candidates(levels):
        problem = ready or probe(make())
        if not problem:
            return SandboxStatus(make(), reason, remedy)
        if not reason:  # the best level's reason is the one worth mending
            reason, remedy = problem, _remedy(problem)
    return SandboxStatus(None, reason, remedy)


def unsandboxed_or_sandbox(unsandboxed: bool) -> Sandbox:
    """The sandbox; where there is none, level D if the user asked for it.

    Raises:
        SandboxError: there is none, and nobody asked for level D.
    """
    status = sandbox_status()
    if status.ok or not unsandboxed or not sys.platform.startswith("linux"):
        return status.require()
    return isolation.unconfined()


def _candidates(levels: str) -> Iterator[tuple[str, Callable[[], Sandbox]]]:
    """Sandboxes to try, the strongest first, each with what is missing for it."""
    from codellm_eval.judge.harness import landlock, seccomp  # they load what only Linux has

    unwritten = "" if seccomp.supported() else "the filter of system calls is written for x86_64 and aarch64"
    bwrap = shutil.which("bwrap")
    uninstalled = "" if bwrap else "bubblewrap is not installed"
    # Root outside a user namespace comes first: only there can a program get a user id of its own.
    roots = (True, False) if os.geteuid() == 0 else (False,)
    for level, make in (("A", bubblewrap.fork_server), ("B", bubblewrap.one_each)):
        for as_root in roots if level in levels else ():
            yield unwritten or uninstalled, functools.partial(make, bwrap or "bwrap", as_root=as_root)
    unrestricted = "" if landlock.version() else "the kernel has no Landlock"
    for own_user in roots if "C" in levels else ():
        # Nothing can be mounted elsewhere here, so another user needs the interpreter where it is.
        if not own_user or all(map(_anyone_reads, view().shown)):
            yield unwritten or unrestricted, functools.partial(isolation.alone, own_user=own_user)


def _anyone_reads(path: str) -> bool:
    return bool(Path(path).stat().st_mode & 0o004) and all(
        folder.stat().st_mode & 0o001 for folder in Path(path).parents
    )


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
    """The command that most likely mends what a level complained of."""
    if "not installed" in complaint:
        return INSTALL
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
