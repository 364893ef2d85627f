"""Core's own plugin: what happens where no other plugin wants to wrap or replace it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from codellm.hookspec import hookimpl

if TYPE_CHECKING:
    from codellm.backend import Backend
    from codellm.model import Model
    from codellm.sequence import Sequence, Token
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec


@hookimpl(trylast=True)
def codellm_load(spec: LoadSpec, source: ModelSource, backend: Backend) -> Model:
    """Ask the backend."""
    return backend.load(spec, source)


@hookimpl(trylast=True)
def codellm_generate(model: Model, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
    """Ask the model."""
    return model.run(sequences)
