"""The command lines of bubblewrap: an interpreter that sees no file, process or network of the machine."""

from __future__ import annotations

from pathlib import Path

from codellm_eval.judge.interpreter import ENVIRONMENT, command
from codellm_eval.judge.isolation import SCRATCH, SERVER_PATH, SHARED_MEMORY, Sandbox
from codellm_eval.judge.view import view

_MIB = 1 << 20
_SIZES = {SCRATCH: 64 * _MIB, SHARED_MEMORY: 16 * _MIB}
_INODES = 16384
_ETC = Path(__file__).parent / "etc"
"""Names that a network of one machine has."""
_ROOT = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL", "CAP_SYS_PTRACE")
"""What the server needs to make each candidate another user, without any right, to see its memory and to end it."""


def fork_server(bwrap: str, *, as_root: bool) -> Sandbox:
    """Sandbox of level A: one bubblewrap for each worker, in which a server makes namespaces for each sample."""
    capabilities = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", *(_ROOT if as_root else ("CAP_SETPCAP",))]
    return Sandbox(
        level="A",
        command=_command(bwrap, as_root, capabilities, "serve_namespaces"),
        once=False,
        own_user=as_root,
        scratch={folder: f"size={size},nr_inodes={_INODES},mode=1777" for folder, size in _SIZES.items()},
        kept=tuple(filter(_in_scratch, view().shown)),
        links=tuple((link, target) for link, target in view().links if _in_scratch(link)),
        user=_user(as_root),
    )


def one_each(bwrap: str, *, as_root: bool) -> Sandbox:
    """Sandbox of level B: one bubblewrap for each sample, which may not hold the right to make namespaces."""
    capabilities = _ROOT if as_root else ()
    return Sandbox(
        level="B",
        command=_command(bwrap, as_root, [*capabilities], "serve_once", "--as-pid-1", "--remount-ro", "/proc"),
        once=True,
        own_user=as_root,
        user=_user(as_root),
    )


def _user(as_root: bool) -> str:
    return "a user id of its own" if as_root else "nobody in a user namespace"


def _in_scratch(path: str) -> bool:
    return any(path.startswith(f"{folder}/") for folder in _SIZES)


def _command(bwrap: str, as_root: bool, capabilities: list[str], function: str, *more: str) -> tuple[str, ...]:
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    user = [] if as_root else ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    rights = [part for name in capabilities for part in ("--cap-add", name)]
    environment = [part for name, value in ENVIRONMENT.items() for part in ("--setenv", name, value)]
    return (
        bwrap, *user, *spaces, "--hostname", "localhost", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
        *rights, *_filesystem(), *more, *environment, "--", *command(SERVER_PATH, "server", function),
    )  # fmt: skip


def _filesystem() -> list[str]:
    """Scratch space that is bounded and forgotten; read-only, what a program of the interpreter needs."""
    seen = view()
    arguments = [*_scratch(SCRATCH), "--proc", "/proc", "--dev", "/dev", *_scratch(SHARED_MEMORY)]
    made = {"/", "/dev", *_SIZES}
    for path in seen.shown:
        arguments += [*_parents(path, made), "--ro-bind", path, path]
    for path in seen.hidden:
        arguments += ["--perms", "0755", "--tmpfs", path, "--remount-ro", path]
    for link, target in seen.links:
        arguments += [*_parents(link, made), "--symlink", target, link]
    for file in _ETC.iterdir():
        arguments += [*_parents(f"/etc/{file.name}", made), "--ro-bind", str(file), f"/etc/{file.name}"]
    # What bubblewrap made itself, the root and /dev, is memory without a limit until it is read-only.
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH]


def _parents(path: str, made: set[str]) -> list[str]:
    """Folders above `path`; bubblewrap makes missing ones for its own user alone, and the program is another one."""
    missing = [str(parent) for parent in reversed(Path(path).parents) if str(parent) not in made]
    made.update(missing)
    return [part for parent in missing for part in ("--perms", "0755", "--dir", parent)]


def _scratch(folder: str) -> list[str]:
    return ["--perms", "1777", "--size", str(_SIZES[folder]), "--tmpfs", folder]
