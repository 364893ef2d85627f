"""The backend `llama-cpp`: GGUF files on llama.cpp."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm.backend import Availability, Backend
from codellm_cpu.llama.options import OPTIONS, Options

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.options import Option
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec


class LlamaCppBackend(Backend):
    """Runs GGUF files on the CPU."""

    name: ClassVar[str] = "llama-cpp"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf"})
    preference: ClassVar[int] = 20
    default_scheme: ClassVar[str | None] = "q8_0"
    options: ClassVar[Mapping[str, Option[Any]]] = OPTIONS

    def availability(self) -> Availability:
        if importlib.util.find_spec("llama_cpp") is None:
            return Availability(False, "llama-cpp-python is not installed", "pip install llama-cpp-python")
        return Availability(True)

    def schemes(self) -> tuple[Scheme, ...]:
        from codellm_cpu.schemes import SCHEMES

        return tuple(SCHEMES)

    def load(self, spec: LoadSpec, source: ModelSource) -> Model:
        from codellm_cpu.llama.load import load

        return load(spec, source, Options.parse(spec.options))

    def bandwidth(self, device: str) -> float | None:
        """What all default threads together read from main memory, measured once per process (about 0.2 s)."""
        from codellm.system.machine import default_threads, read_bandwidth

        return read_bandwidth(default_threads()) if device in ("auto", "cpu") else None
