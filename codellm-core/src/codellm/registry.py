"""Backends and schemes by name, from every plugin that works."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from codellm import plugins
from codellm.backend import Availability, Backend
from codellm.errors import BackendChoiceError, BackendUnavailableError, PluginError, UnknownNameError
from codellm.scheme import Scheme
from codellm.spec import LoadSpec


@attrs.frozen
class Registry:
    """Names decide, never order: two plugins with one backend name block both.

    `conflicts` are the names that several plugins claim, with those plugins.
    """

    backends: Mapping[str, Backend]
    schemes: Mapping[str, Scheme]
    conflicts: Mapping[str, tuple[str, ...]]

    def backend(self, name: str) -> Backend:
        """The backend `name`.

        Raises:
            PluginError: several plugins claim the name, or the plugin of that name is broken.
            UnknownNameError: nobody has it.
        """
        if name in self.conflicts:
            owners = ", ".join(self.conflicts[name])
            raise PluginError(f"backend {name!r} is claimed by {owners}; uninstall all but one of them")
        if name not in self.backends:
            plugins.manager().raise_blocked(name)
            raise UnknownNameError("backend", name, self.backends, _broken_hint())
        return self.backends[name]

    def scheme(self, name: str) -> Scheme:
        """The scheme `name`, of a plugin that writes it or a backend that applies it.

        Raises:
            UnknownNameError: nobody has it.
        """
        if name not in self.schemes:
            raise UnknownNameError("scheme", name, self.schemes, _broken_hint())
        return self.schemes[name]

    def choose(self, spec: LoadSpec, format: str) -> Backend:
        """The backend for a source of `format`: the one named, else the available one with the highest preference
        that takes the format or is one file scheme away.

        Raises:
            BackendUnavailableError: the one named cannot run here; says what mends it.
            BackendChoiceError: none, or several equally preferred; lists the candidates with their reasons.
            UnknownNameError, PluginError: see `backend`.
        """
        if spec.backend is not None:
            backend = self.backend(spec.backend)
            require(backend)
            return backend
        verdicts = {backend.name: self._verdict(backend, spec, format) for backend in self.backends.values()}
        fit = [backend for backend in self.backends.values() if not verdicts[backend.name]]
        best = max((backend.preference for backend in fit), default=0)
        chosen = [backend for backend in fit if backend.preference == best]
        if len(chosen) == 1:
            return chosen[0]
        if chosen:
            names = ", ".join(sorted(backend.name for backend in chosen))
            raise BackendChoiceError(f"{names} are equally preferred for {spec.model!r}; name one with --backend")
        if not verdicts:
            raise BackendChoiceError(
                f"no backend is installed; `pip install codellm-cpu` brings llama.cpp.{_broken_hint()}"
            )
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(verdicts.items()))
        raise BackendChoiceError(f"no backend takes {spec.model!r} ({format}): {reasons}.{_broken_hint()}")

    def reaches(self, backend: Backend, format: str) -> bool:
        """Whether `backend` takes `format`, or a file scheme leads from it to a format that it takes."""
        return format in backend.formats or any(
            scheme.applies == "file" and format in scheme.takes and scheme.format in backend.formats
            for scheme in self.schemes.values()
        )

    def _verdict(self, backend: Backend, spec: LoadSpec, format: str) -> str:
        """Why `backend` does not fit, empty where it does."""
        if not self.reaches(backend, format):
            return f"takes {', '.join(sorted(backend.formats))}"
        if spec.scheme is not None and spec.scheme not in {scheme.name for scheme in backend.schemes()}:
            return f"has no scheme {spec.scheme}"
        available = backend.availability()
        return "" if available.ok else f"{available.reason} ({available.remedy})"


def require(backend: Backend) -> Availability:
    """See that `backend` can run here.

    Raises:
        BackendUnavailableError: it cannot; says what mends it.
    """
    available = backend.availability()
    if not available.ok:
        raise BackendUnavailableError(
            f"backend {backend.name!r} cannot run here: {available.reason}; {available.remedy}"
        )
    return available


def _broken_hint() -> str:
    broken = [plugin.name for plugin in plugins.manager().plugins if plugin.error is not None]
    return f"(broken plugins: {', '.join(broken)}; see `codellm plugins`)" if broken else ""


@functools.cache
def registry() -> Registry:
    """Everything that the plugins bring."""
    owners: dict[str, list[str]] = {}
    backends: dict[str, Backend] = {}
    schemes: dict[str, Scheme] = {}
    for name in _names():
        for backend in _collect(name, "codellm_backends", Backend):
            owners.setdefault(backend.name, []).append(name)
            backends[backend.name] = backend
        for scheme in _collect(name, "codellm_schemes", Scheme):
            schemes.setdefault(scheme.name, scheme)
    conflicts = {name: tuple(sorted(claims)) for name, claims in owners.items() if len(claims) > 1}
    kept = {name: backend for name, backend in sorted(backends.items()) if name not in conflicts}
    for backend in kept.values():
        for scheme in backend.schemes():
            schemes.setdefault(scheme.name, scheme)
    return Registry(MappingProxyType(kept), MappingProxyType(schemes), MappingProxyType(conflicts))


def _names() -> list[str]:
    manager = plugins.manager()
    return [plugin.name for plugin in manager.plugins if plugin.error is None]


def _collect(plugin: str, hook: str, kind: type) -> list[Any]:
    """What one plugin's hook returns, or nothing and the plugin blocked where it misbehaves."""
    manager = plugins.manager()
    implementation = next(
        (one for one in getattr(manager.hook, hook).get_hookimpls() if one.plugin_name == plugin), None
    )
    if implementation is None:
        return []
    try:
        found = list(implementation.function())
        wrong = next((item for item in found if not isinstance(item, kind)), None)
        if wrong is not None:
            raise TypeError(f"{hook} returned {type(wrong).__name__}, not {kind.__name__}")
    except Exception as error:
        manager.block(plugin, error)
        return []
    return found
