"""Loading a source as it is, with nothing to choose or to make: the last step of every load."""

from __future__ import annotations

from typing import Any

import attrs

from codellm.errors import message
from codellm.model import Model
from codellm.plugins import validate
from codellm.plugins.guard import breach, guarded
from codellm.plugins.manager import manager
from codellm.plugins.registry import registry
from codellm.sources import ModelSource
from codellm.spec import LoadSpec


def open_source(source: ModelSource, **fields: Any) -> Model:
    """Load a source as it is, with the preferred backend of its format.

    Raises:
        CodellmError: see `codellm.load`.
    """
    spec = LoadSpec(model=source.name, scheme=source.scheme, **fields)
    # a quantized checkpoint is read by those alone who know its scheme; any other file says itself what is in it
    asked = spec if source.format == "safetensors" else attrs.evolve(spec, scheme=None)
    backend = registry().choose(asked, source.format, as_is=True)
    return open_with(attrs.evolve(spec, backend=backend.name), source)


def open_with(spec: LoadSpec, source: ModelSource) -> Model:
    """Load a source with the backend that the spec names.

    Raises:
        CodellmError: see `codellm.load`.
    """
    backend = registry().backend(str(spec.backend))
    with guarded(backend.name, f"to load {source.name}"):
        found: object = manager().hook.codellm_load(spec=spec, source=source, backend=backend)
        try:
            return validate.model(found)
        except TypeError as error:
            raise breach(backend.name, message(error), "codellm_load") from error
