"""Which files a process may use, by the kernel's Landlock.

Through system calls of our own, because the package `landlock` has had no stable release (1.0.0.dev5 in May 2025) and
the interpreter that restricts itself has no site-packages. Numbers and layouts: `linux/landlock.h` and
Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import struct
from collections.abc import Iterable

from . import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_DEVICES = 1 << 6 | 1 << 11
"""Making character and block devices, which no program may."""
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""Rights that make sense for a single file: execute, write, read, truncate, ioctl."""
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files each version of the interface knows, where that changed."""
_NETWORK, _SCOPED = 0b11, 0b11
"""TCP bind and connect, from version 4; abstract sockets and signals of others, from version 6."""


def version() -> int:
    """The version of the kernel's interface; 0 where there is none."""
    try:
        return kernel.call(_CREATE, 0, 0, _VERSION)
    except OSError:
        return 0


def ruleset(readable: Iterable[str], writable: Iterable[str]) -> int:
    """A descriptor of rules that leave these folders and files and nothing else; missing ones are left out.

    Raises:
        OSError: the kernel does not offer it.
    """
    abi = version()
    attributes = struct.pack("=QQQ", _files(abi), _NETWORK, _SCOPED)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    rules = kernel.call(_CREATE, ctypes.c_char_p(attributes), len(attributes), 0)
    for path in readable:
        _allow(rules, path, _READ_FILE | _READ_DIRECTORY)
    for path in writable:
        allow_writing(rules, path)
    return rules


def allow_writing(rules: int, path: str) -> None:
    """Leave one more folder or file, to be read and written."""
    _allow(rules, path, _files(version()) & ~_DEVICES)


def restrict(rules: int) -> None:
    """Hold this process and what it starts to rules, for ever.

    Raises:
        OSError: `forbid_privileges` was not called before.
    """
    kernel.call(_RESTRICT, rules, 0)


@functools.cache
def _files(abi: int) -> int:
    """Rights on files, all that a version of the interface knows."""
    return (1 << max(count for since, count in _RIGHTS.items() if since <= max(abi, 1))) - 1


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        rights &= _OF_FILES
    rule = struct.pack("=Qi", rights, opened)
    kernel.call(_ADD, rules, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    os.close(opened)
