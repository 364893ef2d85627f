"""Backends and schemes by name, from every plugin that works."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

import attrs

from codellm.backend import Availability, Backend
from codellm.errors import BackendChoiceError, BackendUnavailableError, PluginError, UnknownNameError
from codellm.plugins import entry_points, validate
from codellm.plugins.attempt import attempt
from codellm.plugins.entry_points import DISABLE
from codellm.plugins.manager import Plugin, PluginManager, describe, manager
from codellm.scheme import Scheme
from codellm.spec import LoadSpec

T = TypeVar("T")


@attrs.frozen
class Registry:
    """Names decide, never order: two plugins with one name for a backend, or for a file scheme, block both.

    `conflicts` are the names of backends that several plugins claim, with those plugins, and `scheme_conflicts` those
    of file schemes.
    """

    backends: Mapping[str, Backend]
    schemes: Mapping[str, Scheme]
    conflicts: Mapping[str, tuple[str, ...]]
    scheme_conflicts: Mapping[str, tuple[str, ...]]

    def backend(self, name: str) -> Backend:
        """The backend `name`.

        Raises:
            PluginError: several plugins claim the name, or the plugin of that name is broken or turned off.
            UnknownNameError: nobody has it.
        """
        _refuse_claimed("backend", name, self.conflicts)
        if name not in self.backends:
            manager().raise_blocked(name)
            raise UnknownNameError("backend", name, self.backends, _unused_hint())
        return self.backends[name]

    def scheme(self, name: str) -> Scheme:
        """The scheme `name`, of a plugin that writes it or a backend that applies it.

        Raises:
            PluginError: several plugins claim to write it.
            UnknownNameError: nobody has it.
        """
        _refuse_claimed("scheme", name, self.scheme_conflicts)
        if name not in self.schemes:
            raise UnknownNameError("scheme", name, self.schemes, _unused_hint())
        return self.schemes[name]

    def takes(self, format: str) -> bool:
        """Whether some plugin loads this format, or makes another one of it."""
        return any(format in backend.formats for backend in self.backends.values()) or any(
            format in scheme.takes for scheme in self.schemes.values()
        )

    def choose(self, spec: LoadSpec, format: str, *, as_is: bool = False) -> Backend:
        """The backend for a source of `format`: the one named, else the available one with the highest preference
        that takes the format or, unless it is to be loaded `as_is`, is one file scheme away.

        Raises:
            BackendUnavailableError: the one named cannot run here; says what mends it.
            BackendChoiceError: the one named does not take the format; none does, or several equally preferred: lists
                the candidates with their reasons.
            UnknownNameError, PluginError: see `backend`.
        """
        if spec.backend is not None:
            backend = self.backend(spec.backend)
            require(backend, spec.device)
            if format not in backend.formats and (as_is or not self.reaches(backend, format)):
                raise BackendChoiceError(self._untaken(backend, spec, format))
            return backend
        verdicts = {name: self._verdict(backend, spec, format, as_is=as_is) for name, backend in self.backends.items()}
        fit = [backend for name, backend in self.backends.items() if not verdicts[name]]
        best = max((backend.preference for backend in fit), default=0)
        chosen = [backend for backend in fit if backend.preference == best]
        if len(chosen) == 1:
            for name, owners in self.conflicts.items():  # it might have been preferred, and figures would be others
                manager().warn(f"backend {name!r} is not used: {claimed(owners)}")
            return chosen[0]
        if chosen:
            names = ", ".join(sorted(backend.name for backend in chosen))
            raise BackendChoiceError(f"{names} are equally preferred for {spec.model!r}; name one with --backend")
        verdicts |= {name: claimed(owners) for name, owners in self.conflicts.items()}
        if not verdicts:
            raise BackendChoiceError(
                f"no backend is installed; `pip install codellm-cpu` brings llama.cpp.{_unused_hint()}"
            )
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(verdicts.items()))
        raise BackendChoiceError(f"no backend takes {spec.model!r} ({format}): {reasons}.{_unused_hint()}")

    def reaches(self, backend: Backend, format: str) -> bool:
        """Whether `backend` takes `format`, or a file scheme leads from it to a format that it takes."""
        return format in backend.formats or any(
            scheme.applies == "file" and format in scheme.takes and scheme.format in backend.formats
            for scheme in self.schemes.values()
        )

    def _untaken(self, backend: Backend, spec: LoadSpec, format: str) -> str:
        able = [other for other in self.backends.values() if self.reaches(other, format) and availability(other).ok]
        names = " or ".join(sorted(other.name for other in able))
        remedy = f"leave out --backend, or name {names}" if able else "no other backend takes it here either"
        return (
            f"{spec.model} is {format}, which backend {backend.name!r} does not take (it takes "
            f"{', '.join(sorted(backend.formats))}); {remedy}"
        )

    def _verdict(self, backend: Backend, spec: LoadSpec, format: str, *, as_is: bool) -> str:
        """Why `backend` does not fit, empty where it does."""
        if format not in backend.formats and (as_is or not self.reaches(backend, format)):
            return f"takes {', '.join(sorted(backend.formats))}"
        if spec.scheme is not None and spec.scheme not in {scheme.name for scheme in backend.schemes()}:
            return f"has no scheme {spec.scheme}"
        if backend.device is not None and spec.device not in {"auto", backend.device}:
            return f"is for the device {backend.device}"
        available = availability(backend)
        return "" if available.ok else f"{available.reason} ({available.remedy})"


def availability(backend: Backend) -> Availability:
    """Whether `backend` can run here; one whose own `availability` fails cannot, and hurts no other."""
    entry = entry_points.owner(type(backend).__module__)
    tried = attempt(lambda: validate.availability(backend), entry)
    if tried.value is not None:
        return tried.value
    author = f"the author of {entry.distribution}" if entry is not None else "its author"
    why = describe(tried.error) if tried.error is not None else ""
    return Availability(False, f"availability() failed ({why})", f"report it to {author}")


def require(backend: Backend, device: str) -> Availability:
    """See that `backend` can run here, on `device`.

    Raises:
        BackendUnavailableError: it cannot; says what mends it.
    """
    available = availability(backend)
    if not available.ok and device not in available.elsewhere:
        raise BackendUnavailableError(
            f"backend {backend.name!r} cannot run here: {available.reason}; {available.remedy}"
        )
    return available


def _refuse_claimed(kind: str, name: str, conflicts: Mapping[str, tuple[str, ...]]) -> None:
    if name in conflicts:
        raise PluginError(f"{kind} {name!r} is {claimed(conflicts[name])}")


def claimed(owners: Iterable[str]) -> str:
    """What to say of a name that several plugins take."""
    return f"claimed by {', '.join(owners)}; uninstall all but one of them, or name all but one in {DISABLE}"


def _unused_hint() -> str:
    """The plugins that are not used, to an error that one of them might have spared."""
    unused = [plugin for plugin in manager().plugins if plugin.problem is not None]
    states = {
        "broken": sorted({plugin.name for plugin in unused if not plugin.entry.off}),
        "turned off": sorted({plugin.name for plugin in unused if plugin.entry.off}),
    }
    told = [f"plugins {state}: {', '.join(names)}" for state, names in states.items() if names]
    return f"({'; '.join(told)}; see `codellm plugins`)" if told else ""


@functools.cache
def registry() -> Registry:
    """Everything that the plugins bring."""
    plugins = manager()
    backends: dict[str, dict[str, Backend]] = {}
    schemes: dict[str, dict[str, Scheme]] = {}
    origins: dict[str, Plugin] = {}
    for plugin in plugins.working():
        brought = plugins.collect(plugin, functools.partial(_brought, plugins, plugin))
        for backend in brought.backends if brought else ():
            backends.setdefault(backend.name, {})[plugin.brief] = backend
            origins[backend.name] = plugin
        for scheme in brought.schemes if brought else ():
            schemes.setdefault(scheme.name, {})[plugin.brief] = scheme
    kept = dict(sorted(_unclaimed(backends).items()))
    plugins.origins.update((name, origins[name]) for name in kept)
    known = _unclaimed(schemes)
    for backend in kept.values():
        for scheme in backend.schemes():
            if scheme.name not in schemes:
                known.setdefault(scheme.name, scheme)
    return Registry(MappingProxyType(kept), MappingProxyType(known), _conflicts(backends), _conflicts(schemes))


@attrs.frozen
class _Brought:
    """What one plugin brings."""

    backends: list[Backend]
    schemes: list[Scheme]


def _brought(plugins: PluginManager, plugin: Plugin) -> _Brought:
    return _Brought(
        validate.backends(plugins.ask(plugin, "codellm_backends")),
        validate.schemes(plugins.ask(plugin, "codellm_schemes")),
    )


def _unclaimed(claims: dict[str, dict[str, T]]) -> dict[str, T]:
    """What exactly one plugin brings, by its name."""
    return {name: next(iter(brought.values())) for name, brought in claims.items() if len(brought) == 1}


def _conflicts(claims: dict[str, dict[str, T]]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({name: tuple(sorted(brought)) for name, brought in claims.items() if len(brought) > 1})
