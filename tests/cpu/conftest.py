"""A tiny GGUF model for the tests of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codellm.spec import LoadSpec
from support.tiny_gguf import source_of, write_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def load_tiny(tiny_gguf: Path) -> Iterator[Callable[..., Any]]:
    """Load the tiny model; models of equal specs are shared, and closed at the end of the session."""
    pytest.importorskip("llama_cpp")
    from codellm_cpu.llama.backend import LlamaCppBackend

    loaded: dict[str, Any] = {}

    def load(path: Path = tiny_gguf, **spec: Any) -> Any:
        spec = {"threads": 1, "context_length": 256, **spec}
        key = f"{path} {sorted(spec.items())}"
        if key not in loaded:
            loaded[key] = LlamaCppBackend().load(LoadSpec(model=str(path), **spec), source_of(path))
        return loaded[key]

    yield load
    for model in loaded.values():
        model.close()
