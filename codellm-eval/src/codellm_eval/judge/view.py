"""What a program sees of the machine's files: the interpreter, its standard library, and nothing that was installed.

One rule for every layout of Python: each path that the interpreter opens leads to the same file, over the same links.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Container, Iterator
from pathlib import Path

import attrs

from codellm_eval.judge.interpreter import ENVIRONMENT, Interpreter, interpreter

SHELL = "/bin/sh"
_DATA = ("/usr/lib/locale", "/usr/share/zoneinfo", "/etc/ld.so.cache")
"""What the C library and `zoneinfo` read. The loader finds a libpython outside its folders by the cache alone."""
_LIBRARYS_OWN = ("lib-dynload", "test", "__pycache__", "__hello__", "__phello__", "_sysconfigdata_")
"""Of a standard library's folder, beside the modules that it names."""
_MAX_LINKS = 40
"""The kernel's own limit in one path."""


@attrs.frozen
class View:
    """Files and folders by their real paths."""

    shown: tuple[str, ...]
    """Together with all that is in them."""
    hidden: tuple[str, ...]
    """Folders in those that are shown which are not the library's own: site-packages for instance."""
    readable: tuple[str, ...]
    """The same piece by piece, where nothing that is shown can be hidden again."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links outside of what is shown, and where they point."""


@functools.cache
def view() -> View:
    """What a program of this interpreter sees.

    Raises:
        SandboxError: the interpreter does not answer.
    """
    return view_of(interpreter())


def view_of(python: Interpreter) -> View:
    """What a program of `python` sees."""
    collected = _Collected(python.modules)
    for path in (python.executable, *python.path, *python.libraries, SHELL, *_libraries_of(SHELL), *_DATA):
        collected.add(path, library=path in python.path)
    return collected.view()


class _Collected:
    """The paths of a view while they are found."""

    def __init__(self, modules: frozenset[str]) -> None:
        self._modules = modules
        self._links: dict[str, str] = {}
        self._shown: dict[str, None] = {}
        self._hidden: dict[str, None] = {}
        self._readable: dict[str, None] = {}

    def add(self, path: str, *, library: bool = False) -> None:
        """A path that must resolve; a folder of a standard library is shown without what is not its own."""
        real = self._follow(path)
        resolved = Path(real)
        if real in self._shown or not resolved.exists():
            return
        self._shown[real] = None
        if library and resolved.is_dir() and not self._own(resolved.name):
            self._add_library(resolved)
        else:
            self._readable[real] = None

    def view(self) -> View:
        """View of all that was added."""
        shown = sorted(path for path in self._shown if not self._covers(path))
        links = ((link, target) for link, target in sorted(self._links.items()) if not self._covers(link))
        return View(tuple(shown), tuple(self._hidden), tuple(self._readable), tuple(links))

    def _add_library(self, folder: Path) -> None:
        for entry in os.scandir(folder):
            if self._own(entry.name):
                self._readable[os.path.realpath(entry.path)] = None
            elif entry.is_dir(follow_symlinks=False):
                self._hidden[entry.path] = None
        for link in _links_out_of(folder, self._hidden):
            target, inside = self._follow(str(link)), link.relative_to(folder)
            # A library of links to another one is as many files as that other one.
            if target.endswith(f"/{inside}"):
                self.add(target.removesuffix(f"/{inside}"), library=True)
            elif self._own(inside.parts[0]):
                self.add(target)

    def _own(self, name: str) -> bool:
        return name.partition(".")[0] in self._modules or name.startswith(_LIBRARYS_OWN)

    def _covers(self, path: str) -> bool:
        return any(str(parent) in self._shown for parent in Path(path).parents)

    def _follow(self, path: str) -> str:
        """Where a path leads, its links noted on the way, as the kernel walks it."""
        real, rest, links = Path("/"), [*Path(path).parts], 0
        while rest and links <= _MAX_LINKS:
            part = rest.pop(0)
            here = real.parent if part == ".." else real / part
            if here.is_symlink():
                links += 1
                target = here.readlink()
                self._links[str(here)] = str(target)
                rest = [*target.parts, *rest]
            else:
                real = here
        return str(real)


def _links_out_of(folder: Path, hidden: Container[str]) -> Iterator[Path]:
    folders = [folder]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_symlink():
                if not Path(entry.path).resolve().is_relative_to(folder):
                    yield Path(entry.path)
            elif entry.is_dir() and entry.path not in hidden and entry.name != "__pycache__":
                folders.append(Path(entry.path))


def _libraries_of(program: str) -> list[str]:
    """The shared libraries of a program, as the loader of glibc tells them; other loaders start it, and it ends."""
    try:
        told = subprocess.run(
            [program],
            env={**ENVIRONMENT, "LD_TRACE_LOADED_OBJECTS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError:
        return []
    words = (line.split("=>")[-1].split() for line in told.splitlines())
    return [each[0] for each in words if each and each[0].startswith("/")]
