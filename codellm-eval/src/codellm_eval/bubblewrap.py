"""The command lines of bubblewrap: an interpreter that sees no file, process or network of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

from codellm_eval.isolation import ENVIRONMENT, HARNESS, SCRATCH, SHARED_MEMORY, Sandbox, interpreter

_MIB = 1 << 20
_SIZES = {SCRATCH: 64 * _MIB, SHARED_MEMORY: 16 * _MIB}
_INODES = 16384
_JUDGE = "/judge"
"""Where the harness lies in the sandbox; the machine's own path may not be readable for another user."""
_ROOT = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL", "CAP_SYS_PTRACE")
"""What the server needs to make each candidate another user, without any right, to see its memory and to end it."""


def fork_server(bwrap: str, *, as_root: bool) -> Sandbox:
    """Level A: one bubblewrap for each worker, in which a server makes namespaces for each sample."""
    capabilities = ["CAP_SYS_ADMIN", *(_ROOT if as_root else ("CAP_SETPCAP",))]
    return Sandbox(
        level="A",
        command=_command(bwrap, as_root, capabilities, "serve_namespaces"),
        once=False,
        own_user=as_root,
        scratch={place: f"size={size},nr_inodes={_INODES},mode=1777" for place, size in _SIZES.items()},
        user=_user(as_root),
    )


def one_each(bwrap: str, *, as_root: bool) -> Sandbox:
    """Level B: one bubblewrap for each sample, which may not hold the right to make namespaces."""
    capabilities = _ROOT if as_root else ()
    return Sandbox(
        level="B",
        command=_command(bwrap, as_root, [*capabilities], "serve_once", "--as-pid-1"),
        once=True,
        own_user=as_root,
        user=_user(as_root),
    )


def _user(as_root: bool) -> str:
    return "a user id of its own" if as_root else "nobody in a user namespace"


def _command(bwrap: str, as_root: bool, capabilities: list[str], function: str, *more: str) -> tuple[str, ...]:
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    user = [] if as_root else ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    rights = [part for name in capabilities for part in ("--cap-add", name)]
    return (
        bwrap, *user, *spaces, "--die-with-parent", "--new-session", "--cap-drop", "ALL", *rights, *more,
        *_filesystem(), *(part for name, value in ENVIRONMENT.items() for part in ("--setenv", name, value)),
        "--", *interpreter(_JUDGE, "server", function),
    )  # fmt: skip


def _filesystem() -> list[str]:
    """The system's libraries and the interpreter, read-only; scratch space that is bounded and forgotten."""
    arguments = [*_scratch(SCRATCH), "--ro-bind", "/usr", "/usr"]
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
            arguments += ["--perms", "0755", "--dir", str(parent)] if parent != Path(SCRATCH) else []
        arguments += ["--ro-bind", str(prefix), str(prefix)]
    arguments += ["--ro-bind", str(HARNESS), f"{_JUDGE}/{HARNESS.name}", "--proc", "/proc", "--dev", "/dev"]
    arguments += _scratch(SHARED_MEMORY)
    # What bubblewrap made itself, the root and /dev, is memory without a limit until it is read-only.
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH]


def _scratch(place: str) -> list[str]:
    return ["--perms", "1777", "--size", str(_SIZES[place]), "--tmpfs", place]
