"""System calls that Python does not offer: namespaces, mounts, capabilities, seccomp.

Through ctypes, because these run in an interpreter without site-packages and the standard library has none of them
(`os.unshare` and `os.setns` come with Python 3.12, the others never). Each raises OSError as the `os` module does.
Constants are those of the kernel's uapi headers.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)
"""The same functions, called without leaving the interpreter's lock to anyone."""
_Entry = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_NEW_NAMESPACES = 0x20000000 | 0x00020000 | 0x08000000  # pid, mount, ipc
_SHARE_MEMORY, _SHARE_FILES, _WAIT = 0x00000100, 0x00000400, 0x00004000
_USED_STACK = 1 << 18
"""Bytes of the main stack that are more than a server's own frames, and little of what a program may have."""
_READ_ONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _RECURSIVELY = 4096, 16384
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _CAPBSET_DROP, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = (
    1, 4, 22, 24, 36, 38, 47,
)  # fmt: skip
_FILTER, _CLEAR_ALL = 2, 4
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_MODE_FILTER, _NEW_LISTENER = 1, 8
_NEW_NETWORK = 0x40000000
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63


def call(number: int, *arguments: Any) -> int:
    """A system call by its number."""
    return _check(_libc.syscall(ctypes.c_long(number), *(_word(argument) for argument in arguments)))


def call_as_process_1(act: Callable[[], Result]) -> Result:
    """Call `act` in a process of its own, number 1 of new pid, mount and ipc namespaces; nothing in them outlives it.

    As with vfork the process works in the memory of this one, which stands still meanwhile: no page is copied, and what
    `act` returns is simply there. It uses the same stack further down, and the same descriptors. What it forks has
    memory of its own, as ever.

    Raises:
        OSError: the namespaces cannot be made.
        BaseException: what `act` raised.
    """
    results: list[Result] = []
    errors: list[BaseException] = [ChildProcessError("process 1 was killed")]

    def enter(_: Any) -> int:
        try:
            results.append(act())
        except BaseException as error:  # nothing may leave by the way that the other process came in
            errors[0] = error
        return 0

    stack = ctypes.c_void_p(_end_of_stack() - _USED_STACK)
    flags = _NEW_NAMESPACES | _SHARE_MEMORY | _SHARE_FILES | _WAIT | signal.SIGCHLD
    child = _check(_python.clone(_Entry(enter), stack, flags, None))
    os.waitpid(child, 0)
    if not results:
        raise errors[0]
    return results[0]


@functools.cache
def _end_of_stack() -> int:
    """The highest address of the main thread's stack, which grows downwards."""
    [line] = [line for line in Path("/proc/self/maps").read_text("ascii").splitlines() if line.endswith("[stack]")]
    return int(line.split()[0].partition("-")[2], 16)


def mount(kind: str, target: str, options: str = "") -> None:
    """Mount a file system of a kind that needs no device, without set-user-id programs and devices; proc read-only."""
    flags = _NOSUID | _NODEV | (_NOEXEC | _READ_ONLY if kind == "proc" else 0)
    name, data = kind.encode(), options.encode()
    _check(_libc.mount(name, target.encode(), name, ctypes.c_ulong(flags), data))


def bind(source: str, target: str) -> None:
    """Let a file or folder, and what is mounted in it, be found at another path too."""
    _check(_libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(_BIND | _RECURSIVELY), None))


def die_with_parent() -> None:
    """Be killed when the process that started this one ends."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same user may look into this one, by /proc for instance."""
    _prctl(_SET_DUMPABLE, int(dumpable))


def forbid_privileges() -> None:
    """Let no program that is started from here gain rights by its file."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def drop_bounding_capabilities() -> None:
    """Empty the set of capabilities that any program may ever gain."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(_CAPBSET_DROP, ctypes.c_ulong(capability), *_ZEROS) < 0:
            return  # beyond the kernel's last one


def drop_capabilities() -> None:
    """Lose every capability."""
    _libc.prctl(_CAP_AMBIENT, ctypes.c_ulong(_CLEAR_ALL), *_ZEROS)
    _check(_capset(_OWN_CAPABILITIES, _NO_CAPABILITIES))


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter, for ever; it needs `forbid_privileges`."""
    code = _Program(len(program) // 8, program)
    _check(_libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(code), 0, 0))


def listen_for_calls(program: bytes) -> int:
    """Install a filter by which this process is asked before some calls of those it starts; -1 where there is none.

    A descriptor to hear and answer them. It needs `forbid_privileges` or CAP_SYS_ADMIN.
    """
    code = _Program(len(program) // 8, program)
    try:
        return call(_SECCOMP[platform.machine()], _MODE_FILTER, _NEW_LISTENER, ctypes.byref(code))
    except OSError:
        return -1


def leave_network() -> None:
    """Move this process into a new network namespace, which has no device that is up."""
    _check(_libc.unshare(_NEW_NETWORK))


class _Program(ctypes.Structure):
    """Filter as the kernel takes it: `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


_ZEROS = (ctypes.c_ulong(0),) * 3
_capset = _libc.capset
_OWN_CAPABILITIES = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), *_ZEROS))


def _word(argument: Any) -> Any:
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
