"""The backend `llama-cpp`: GGUF files on llama.cpp."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from codellm.backend import Availability, Backend
from codellm.options import Option, choice, count, read, switch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codellm.model import Model
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec


_REPACK: Option[bool | None] = Option(
    None, "one of auto, on, off", lambda text: (None, True, False)[("auto", "on", "off").index(text)]
)


@attrs.frozen(kw_only=True)
class Options:
    """The `-o` options.

    `repack`: whether weights are laid out anew for this processor at load; None where the kernels of the batch decide.
    `chunk`: the most tokens of prompts between two tokens of sequences that generate. With 128, a prompt of a 3B model
    is computed within 5 % as fast as with 512, and the others wait a quarter as long (docs/performance.md, Prefill).
    """

    repack: bool | None
    mmap: bool
    flash_attn: str
    chunk: int

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Options:
        """Options of their texts.

        Raises:
            UnknownNameError: no such option.
            InvalidValueError: a value that the option does not take.
        """
        known: dict[str, Option[Any]] = {
            "repack": _REPACK,
            "mmap": switch("on", "off", default=True),
            "flash-attn": choice("auto", "on", "off"),
            "chunk": count(128, "tokens", 1, 8192),
        }
        return cls(**{name.replace("-", "_"): value for name, value in read(options, known).items()})


class LlamaCppBackend(Backend):
    """Runs GGUF files on the CPU."""

    name: ClassVar[str] = "llama-cpp"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf"})
    preference: ClassVar[int] = 20
    default_scheme: ClassVar[str | None] = "q8_0"

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
        from codellm.machine import default_threads, read_bandwidth

        return read_bandwidth(default_threads()) if device in ("auto", "cpu") else None
