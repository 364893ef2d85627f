"""The interpreter below any virtual environment, without site-packages: how it is started, and what it loads."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import attrs

from codellm_eval.errors import SandboxError

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own, not the machine's
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # a program whose answer hangs on the order of a set gets the same verdict every time
}
_SECONDS = 60.0
"""For the interpreter to import its library on a machine that is busy."""

_LOOK = """
import ctypes, importlib, importlib.machinery, json, os, sys

# The library's tests of itself, and the windows, which no program of a sandbox can open.
left_out = ("_test", "_ctypes_test", "xx", "_xx", "_tkinter")
for folder in filter(os.path.isdir, sys.path):
    for name in os.listdir(folder):
        if name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)) and not name.startswith(left_out):
            try:
                importlib.import_module(name.partition(".")[0])
            except ImportError:
                pass
for late in ("libgcc_s.so.1", "libnss_files.so.2"):  # what libc opens when a thread ends, and for names of hosts
    try:
        ctypes.CDLL(late)
    except OSError:
        pass

class Loaded(ctypes.Structure):  # the beginning of struct dl_phdr_info
    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]

libraries = []

@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Loaded), ctypes.c_size_t, ctypes.c_void_p)
def take(loaded, size, _):
    libraries.append(os.fsdecode(loaded[0].name or b""))
    return 0

ctypes.CDLL(None).dl_iterate_phdr(take, None)
json.dump([sys.path, list(filter(os.path.isabs, libraries)), sorted(sys.stdlib_module_names)], sys.stdout)
"""


@attrs.frozen
class Interpreter:
    """What a bare interpreter says of itself."""

    executable: str
    path: tuple[str, ...]
    """Its `sys.path`: a zip file, if there is one, and the folders of the standard library."""
    libraries: tuple[str, ...]
    """Shared libraries of its own and of all modules of the standard library, by the paths that the loader opened."""
    modules: frozenset[str]
    """Names of the standard library's modules."""


def executable() -> str:
    """The interpreter's file."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def command(parent: str, module: str, function: str) -> list[str]:
    """The command that runs `harness.module.function` in a bare interpreter; `parent` holds the folder `harness`.

    It forgets where it found the harness.
    """
    load = f"sys.path.insert(0, {parent!r}); from harness.{module} import {function} as run; del sys.path[0]"
    return _bare(f"import sys; {load}; run()")


@functools.cache
def interpreter() -> Interpreter:
    """Ask the interpreter, which knows better than any rule of where a library lies.

    Raises:
        SandboxError: it does not answer.
    """
    try:
        done = subprocess.run(
            _bare(_LOOK), env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True
        )
        path, libraries, modules = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SandboxError(f"{executable()} cannot import its standard library: {error}") from error
    return Interpreter(executable(), tuple(path), tuple(libraries), frozenset(modules))


def _bare(program: str) -> list[str]:
    return [executable(), "-s", "-S", "-P", "-X", "utf8", "-c", program]
