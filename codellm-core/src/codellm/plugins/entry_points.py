"""The entry points of plugins and of their commands: found once per process, each read by itself, none imported.

Everything that speaks against importing one is known here: it is turned off, its name is taken twice, its
distribution wants another codellm-core.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
from typing import Any, NamedTuple

from codellm._version import __version__

PLUGINS = "codellm"
COMMANDS = "codellm.commands"
DISABLE = "CODELLM_DISABLE_PLUGINS"
CORE = "codellm-core"


class Remark(NamedTuple):
    """Something about a plugin that its user should know, and what to do about it; one line each."""

    what: str
    remedy: str


class Entry:
    """An entry point of an installed distribution. Reading it never fails, whatever its metadata holds."""

    def __init__(
        self, point: importlib.metadata.EntryPoint, dist: importlib.metadata.Distribution, unreadable: str = ""
    ) -> None:
        self.group, self.name, self.value = point.group, point.name, point.value
        self._point, self._dist, self._unreadable = point, dist, unreadable

    @functools.cached_property
    def distribution(self) -> str:
        """The distribution's name; its folder's where the metadata cannot be read."""
        return self._metadata("Name") or _folder(self._dist)

    @functools.cached_property
    def version(self) -> str:
        """The distribution's version."""
        return self._metadata("Version") or "?"

    def __str__(self) -> str:
        kind = "command" if self.group == COMMANDS else "plugin"
        return f"{kind} {self.name!r} of {self.distribution} {self.version}"

    @property
    def package(self) -> str:
        """The top-level package that it names."""
        return re.split(r"[.:\s]", self.value, maxsplit=1)[0]

    @property
    def off(self) -> bool:
        """Whether CODELLM_DISABLE_PLUGINS names it, by its own name or by its distribution's."""
        return not {normalized(self.name), normalized(self.distribution)}.isdisjoint(disabled())

    def refusal(self) -> Remark | None:
        """Why it must not be imported; None where nothing speaks against it."""
        if self.off:
            return Remark(f"turned off by {DISABLE}={os.environ[DISABLE]}", "take it out of there to use it")
        if self._unreadable:
            return Remark(f"entry_points.txt cannot be read ({self._unreadable})", self.repair())
        if not re.fullmatch(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?", self.value):
            what = f"the value {self.value!r} of its entry point is neither `module` nor `module:attribute`"
            return Remark(what, self.repair())
        if self.name == CORE and self.group == PLUGINS:
            return Remark(f"the name {CORE!r} is core's own", self.repair())
        rivals = [entry for entry in entries(self.group) if entry.name == self.name and not entry.off]
        if len(rivals) > 1:
            owners = ", ".join(sorted(entry.distribution for entry in rivals))
            remedy = f"uninstall all but one of them, or turn one off: {DISABLE}={self.distribution}"
            return Remark(f"the name {self.name!r} is claimed by {owners}", remedy)
        return self._misfit()

    def load(self) -> Any:
        """Import what it names. May raise anything: call it in an `attempt`."""
        return self._point.load()

    def repair(self) -> str:
        """What to do where it is broken by itself."""
        return f"report it to the author of {self.distribution}, or remove it with `pip uninstall {self.distribution}`"

    def _misfit(self) -> Remark | None:
        """What to say where the distribution wants another version of core."""
        for wanted in self._core_requirements():
            if not wanted.contains(__version__, prereleases=True):
                return Remark(
                    f"wants {CORE} {wanted}, and {__version__} is installed",
                    f"`pip install --upgrade {CORE} {self.distribution}` looks for two that fit",
                )
        return None

    def _core_requirements(self) -> list[Any]:
        """The version ranges of codellm-core in `Requires-Dist`; what cannot be read or does not apply is left out."""
        found = []
        try:
            texts = [text for text in self._dist.requires or () if normalized(text).startswith(CORE)]
        except Exception:
            return []
        for text in texts:
            from packaging.requirements import Requirement

            with contextlib.suppress(Exception):  # unreadable, or a marker nobody can evaluate: no reason to block
                need = Requirement(text)
                if normalized(need.name) == CORE and (need.marker is None or need.marker.evaluate({"extra": ""})):
                    found.append(need.specifier)
        return found

    def _metadata(self, field: str) -> str | None:
        try:
            return self._dist.metadata[field]
        except Exception:  # no METADATA, or one that is no text
            return None


def entries(group: str) -> tuple[Entry, ...]:
    """The entry points of `group`, by name."""
    return tuple(entry for entry in _found() if entry.group == group)


@functools.cache
def _found() -> tuple[Entry, ...]:
    found: dict[str, list[Entry]] = {}
    for dist in importlib.metadata.distributions():
        read = _read(dist)
        if read:  # of several copies of a distribution Python imports the first
            found.setdefault(normalized(read[0].distribution), read)
    together = [entry for read in found.values() for entry in read]
    return tuple(sorted(together, key=lambda entry: (entry.name, entry.distribution)))


def _read(dist: importlib.metadata.Distribution) -> list[Entry]:
    """What `dist` brings. importlib.metadata.entry_points() reads all or, where one file is broken, nothing."""
    text = PLUGINS
    try:
        text = dist.read_text("entry_points.txt") or ""
        if PLUGINS not in text:
            return []
        return [Entry(point, dist) for point in dist.entry_points if point.group in {PLUGINS, COMMANDS}]
    except Exception as error:
        point = importlib.metadata.EntryPoint(_folder(dist), "", PLUGINS)
        return [Entry(point, dist, type(error).__name__)] if PLUGINS in text else []


def _folder(dist: importlib.metadata.Distribution) -> str:
    # private, but nothing else tells where broken metadata lies
    path = getattr(dist, "_path", None)
    return "?" if path is None else str(path.name)


def owner(module: str) -> Entry | None:
    """The plugin or command whose package a module belongs to."""
    package = module.partition(".")[0]
    return next((entry for entry in _found() if entry.package == package and not entry.off), None)


def disabled() -> dict[str, str]:
    """The names that CODELLM_DISABLE_PLUGINS turns off: normalized, and as written."""
    names = (name.strip() for name in os.environ.get(DISABLE, "").split(","))
    return {normalized(name): name for name in names if name}


def normalized(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
