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
def tiny_q8_0(tiny_gguf: Path) -> Path:
    """The tiny model in q8_0, whose matrix kernels compute a row alike however many there are."""
    pytest.importorskip("llama_cpp")
    from codellm_cpu.llama.library import library

    lib = library()
    path = tiny_gguf.with_name("tiny-q8_0.gguf")
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = lib.LLAMA_FTYPE_MOSTLY_Q8_0, 1
    assert lib.llama_model_quantize(str(tiny_gguf).encode(), str(path).encode(), params) == 0
    return path


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
