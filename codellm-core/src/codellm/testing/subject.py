"""The backend that is checked: how it is loaded, what its author stated, what was measured."""

from __future__ import annotations

import argparse
import functools
from typing import Any

import attrs
import pytest

from codellm.backend import Backend
from codellm.errors import CodellmError
from codellm.loading import open_spec, prepare
from codellm.model import Model, ModelInfo
from codellm.plugins.registry import registry, require
from codellm.sources import ModelSource
from codellm.spec import LoadSpec

ROUNDING = 0.01
"""Nats by which two ways of computing one log-probability may differ where no tolerance is stated."""
_DEFAULTS = {"batch_size": 4, "context_length": 512}


@attrs.define
class Measure:
    """The greatest difference seen between two ways of computing one thing, in nats; `stated` is what may be."""

    what: str
    stated: float
    greatest: float | None = None

    def see(self, difference: float) -> None:
        """Count one more."""
        self.greatest = max(self.greatest or 0.0, difference)

    def __str__(self) -> str:
        seen = "equal" if not self.greatest else f"at most {self.greatest:.2g} nats apart"
        return f"{self.what}: {'not measured' if self.greatest is None else seen} (stated: {self.stated:g})"


class Subject:
    """A backend with what it is to load. Loaded models are shared among the checks, by `batch_size`."""

    def __init__(self, backend: Backend, spec: LoadSpec, tolerance: float) -> None:
        self.backend = backend
        self.spec = spec
        self.tolerance = tolerance
        self.batches = Measure("batch against singles", tolerance)
        self.scores = Measure("score against logits", max(tolerance, ROUNDING))
        self._shared: dict[int, Model] = {}
        self._info: ModelInfo | None = None

    @functools.cached_property
    def prepared(self) -> tuple[LoadSpec, ModelSource]:
        """What `Backend.load` is called with."""
        return prepare(self.spec)

    def load(self, **changes: Any) -> Model:
        """A model of the caller's own, straight from `Backend.load`, so that errors come as the backend raises them.

        `changes` are fields of `LoadSpec`, or the `source`.
        """
        spec, source = self.prepared
        source = changes.pop("source", source)
        return self.backend.load(attrs.evolve(spec, **changes), source)

    def shared(self, batch_size: int) -> Model:
        """A loaded model that must be left open and idle."""
        if batch_size not in self._shared:
            self._shared[batch_size] = open_spec(attrs.evolve(self.spec, batch_size=batch_size))
            self._info = self._info or self._shared[batch_size].info
        return self._shared[batch_size]

    def close(self) -> None:
        """Close the shared models; those asked for later are loaded anew."""
        while self._shared:
            self._shared.popitem()[1].close()

    def __repr__(self) -> str:
        return f"<backend {self.backend.name}, tolerance {self.tolerance:g}>"

    def summary(self) -> list[str]:
        """What was checked and measured; nothing where no model was loaded."""
        if self._info is None:
            return []
        info = self._info
        checked = f"backend {self.backend.name}, model {self.spec.model}, scheme {info.scheme}, device {info.device}"
        return [checked, str(self.batches), str(self.scores)]


def subject(options: argparse.Namespace) -> Subject:
    """What the command line names.

    Raises:
        pytest.UsageError: the backend is unknown, broken or cannot run here, or an option is wrong.
    """
    if not options.codellm_tolerance >= 0:
        raise pytest.UsageError(f"--codellm-tolerance is at least 0 nats, not {options.codellm_tolerance}")
    fields = _DEFAULTS | dict(_field(text) for text in options.codellm_spec)
    own = dict(_pair(text, "--codellm-option") for text in options.codellm_option)
    try:
        backend = registry().backend(options.codellm_backend)
        spec = LoadSpec(model=options.codellm_model, backend=options.codellm_backend, options=own, **fields)
        require(backend, spec.device)
    except CodellmError as error:
        raise pytest.UsageError(str(error)) from error
    return Subject(backend, spec, options.codellm_tolerance)


def _field(text: str) -> tuple[str, Any]:
    """A field of `LoadSpec` and its value; whole numbers where the field takes them."""
    name, value = _pair(text, "--codellm-spec")
    name = name.replace("-", "_")
    kinds = {field.name: str(field.type) for field in attrs.fields(LoadSpec)}
    for taken in ("model", "backend", "options"):
        del kinds[taken]  # these have an option of their own
    if name not in kinds:
        raise pytest.UsageError(f"--codellm-spec takes one of {', '.join(kinds)}; not {name!r}")
    return name, int(value) if "int" in kinds[name] and value.isdecimal() else value


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise pytest.UsageError(f"{option} takes NAME=VALUE, not {text!r}")
    return key, value
