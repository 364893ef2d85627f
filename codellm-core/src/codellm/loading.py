"""From a model string to a loaded model: backend, source, artifact, load, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from codellm.artifacts.ensure import ensure, require_original
from codellm.artifacts.opening import open_with
from codellm.backend import Backend
from codellm.errors import UnknownNameError
from codellm.model import Model
from codellm.plugins.registry import registry
from codellm.progress import Progress, quiet
from codellm.scheme import Scheme
from codellm.sources import ModelSource, Reference, model_string
from codellm.spec import LoadSpec


def load(model: str, *, backend: str | None = None, scheme: str | None = None, **spec: Any) -> Model:
    """Load a model: "codellm-demo", a directory, a .gguf file, a hub id, hub-id:SCHEME or "dummy:NAME".

    `spec` are the other fields of `LoadSpec`. The model is a context manager.

    Raises:
        CodellmError: one of its kinds, with one line that says what is wrong and what to do.
        TypeError: a field that `LoadSpec` does not have.
    """
    return open_spec(LoadSpec(model=model, backend=backend, scheme=scheme, **spec))


def find(model: str, revision: str | None = None, progress: Progress = quiet) -> Reference:
    """Understand a model string, as the installed plugins do; nothing of the model is fetched yet.

    Raises:
        CodellmError: see `codellm.sources.model_string.find`.
    """
    return model_string.find(model, registry, revision, progress)


def open_spec(spec: LoadSpec, progress: Progress = quiet, defaults: Mapping[str, str] = MappingProxyType({})) -> Model:
    """Load what `spec` names; files that have to be fetched or made report to `progress`.

    `defaults` are `-o` options that are given where the chosen backend takes them and `spec` says nothing.

    Raises:
        CodellmError: see `load`.
    """
    spec, source = prepare(spec, progress)
    return open_with(with_defaults(spec, registry().backend(str(spec.backend)), defaults), source)


def with_defaults(spec: LoadSpec, backend: Backend, defaults: Mapping[str, str]) -> LoadSpec:
    """`spec` with those of the `defaults` that `backend` takes and `spec` does not give."""
    known = backend.options
    taken = {name: text for name, text in defaults.items() if name in known and known[name].takes_text(text)}
    return attrs.evolve(spec, options={**taken, **spec.options})


def prepare(spec: LoadSpec, progress: Progress = quiet) -> tuple[LoadSpec, ModelSource]:
    """Everything before the load itself: `spec` with backend and scheme chosen, and its files fetched or made.

    Raises:
        CodellmError: see `load`.
    """
    reference = find(spec.model, spec.revision, progress)
    spec = attrs.evolve(
        spec,
        backend=spec.backend or os.environ.get("CODELLM_BACKEND") or None,
        scheme=spec.scheme or reference.scheme,
    )
    if spec.scheme is not None:
        registry().scheme(spec.scheme)
    backend = registry().choose(spec, reference.format)
    scheme = _scheme(backend, spec.scheme, reference.format)
    source = reference.in_scheme(scheme).fetch()
    if scheme is not None and source.scheme != scheme.name:
        require_original(source)
        if scheme.applies == "file":
            source = ensure(source, scheme, threads=spec.threads, progress=progress)
    name = scheme.name if scheme is not None else source.scheme
    return attrs.evolve(spec, backend=backend.name, scheme=name), source


def _scheme(backend: Backend, name: str | None, format: str) -> Scheme | None:
    """The scheme to apply, None for the source's own precision."""
    if name is None and format not in backend.formats:
        name = backend.default_scheme
    if name is None:
        return None
    schemes = {scheme.name: scheme for scheme in backend.schemes()}
    if name not in schemes:
        others = registry().backends.values()
        able = [other.name for other in others if name in {scheme.name for scheme in other.schemes()}]
        hint = f"Backends that have it: {', '.join(able)}." if able else ""
        raise UnknownNameError(f"scheme of backend {backend.name!r}", name, schemes, hint)
    registry().scheme(name)  # several plugins may claim to write the default
    return schemes[name]
