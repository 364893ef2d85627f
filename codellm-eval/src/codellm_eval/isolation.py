"""A sandbox as the worker starts it: its level, the command of its server, and what a sample finds there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import attrs

import codellm_eval.harness

SCRATCH = "/tmp"  # noqa: S108 - the sandbox's own, not the machine's
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - likewise
HARNESS = Path(codellm_eval.harness.__file__).parent
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": SCRATCH,
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # a program whose answer hangs on the order of a set gets the same verdict every time
}

_READABLE = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/etc/ld.so.cache",
    "/dev/null", "/dev/zero", "/dev/urandom", str(Path(sys.base_prefix).resolve()),
)  # fmt: skip
"""What Landlock leaves to a program at level C, and to every checker: the system's libraries and the interpreter."""


@attrs.frozen(kw_only=True)
class Sandbox:
    """A way to run programs that was tried and works."""

    level: str
    """A, B, C or D, as docs/sandbox.md describes them."""
    command: tuple[str, ...]
    """Starts the server."""
    once: bool
    """Whether a server takes one sample only."""
    own_user: bool
    """Whether each sample becomes a user of its own, which only root can give it."""
    user: str
    """Whom a program runs as, in words."""
    scratch: dict[str, str] = attrs.field(factory=dict)
    """Scratch folders of each sample, with their mount options."""
    environment: dict[str, str] = attrs.field(factory=dict)
    """Of the server; empty where bubblewrap sets it, whose own environment a program could read."""

    def for_worker(self) -> dict[str, Any]:
        """The configuration as `harness.sandboxed` takes it."""
        return {
            "command": self.command,
            "environment": self.environment,
            "once": self.once,
            "own_user": self.own_user,
            "scratch": self.scratch,
            "folder": SCRATCH,
            "readable": _READABLE,
        }


def alone(*, own_user: bool) -> Sandbox:
    """Level C: Landlock and a filter of system calls, where nothing may make namespaces."""
    return Sandbox(
        level="C",
        command=(*interpreter(str(HARNESS.parent), "server", "serve_alone"),),
        once=False,
        own_user=own_user,
        user="a user id of its own" if own_user else "the user who judges",
        environment=ENVIRONMENT,
    )


def unconfined() -> Sandbox:
    """Level D: no sandbox, for a machine that is one itself."""
    return Sandbox(
        level="D",
        command=(*interpreter(str(HARNESS.parent), "server", "serve_unconfined"),),
        once=False,
        own_user=False,
        user="the user who judges, with all that this user may do",
        environment=ENVIRONMENT,
    )


def interpreter(parent: str, module: str, function: str) -> list[str]:
    """The command that runs `harness.module.function` in a bare interpreter; `parent` holds the folder `harness`.

    The one below the virtual environment, without site-packages; it forgets where it found the harness.
    """
    base = getattr(sys, "_base_executable", None) or sys.executable
    load = f"sys.path.insert(0, {parent!r}); from harness.{module} import {function} as run; del sys.path[0]"
    return [os.path.realpath(base), "-s", "-S", "-P", "-X", "utf8", "-c", f"import sys; {load}; run()"]
