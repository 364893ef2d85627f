"""A sandbox as the worker starts it: its level, the command of its server, and what a sample finds there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

import codellm_eval.judge.harness
from codellm_eval.judge.interpreter import ENVIRONMENT, command
from codellm_eval.judge.view import view

SCRATCH = ENVIRONMENT["HOME"]
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the sandbox's own, not the machine's
HARNESS = Path(codellm_eval.judge.harness.__file__).parent
SERVER_PATH = "/proc/self/fd/3"
"""Where a server finds the harness: a descriptor that it closes, so that no program finds it anywhere."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


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
    kept: tuple[str, ...] = ()
    """What lies in them and is no scratch: an interpreter below /tmp."""
    links: tuple[tuple[str, str], ...] = ()
    """Symbolic links in them, likewise, and where they point."""
    environment: dict[str, str] = attrs.field(factory=dict)
    """Of the server; empty where bubblewrap sets it, whose own environment a program could read."""

    def for_worker(self) -> dict[str, Any]:
        """The configuration as `harness.sandboxed` takes it."""
        return {
            "command": self.command,
            "environment": self.environment,
            "once": self.once,
            "own_user": self.own_user,
            "harness": str(HARNESS.parent),
            "layout": {"scratch": self.scratch, "kept": self.kept, "links": self.links, "folder": SCRATCH},
            # What Landlock leaves to a program at level C, and to every checker.
            "readable": (*view().readable, *_DEVICES),
        }


def alone(*, own_user: bool) -> Sandbox:
    """Sandbox of level C: Landlock and a filter of system calls, where nothing may make namespaces."""
    return Sandbox(
        level="C",
        command=(*command(SERVER_PATH, "server", "serve_alone"),),
        once=False,
        own_user=own_user,
        user="a user id of its own" if own_user else "the user who judges",
        environment=ENVIRONMENT,
    )


def unconfined() -> Sandbox:
    """Sandbox of level D: none, for a machine that is one itself."""
    return Sandbox(
        level="D",
        command=(*command(SERVER_PATH, "server", "serve_unconfined"),),
        once=False,
        own_user=False,
        user="the user who judges, with all that this user may do",
        environment=ENVIRONMENT,
    )
