"""The backend `llama-cpp`: GGUF files on llama.cpp."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

import attrs

from codellm.backend import Availability, Backend
from codellm.errors import InvalidValueError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codellm.model import Model
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec

_SWITCH = ("on", "off")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "repack": _SWITCH,
    "mmap": _SWITCH,
    "flash-attn": ("auto", "on", "off"),
    "chunk": (),  # a number
}


@attrs.frozen(kw_only=True)
class Options:
    """The `-o` options. `chunk`: the most tokens of one batch, so of one step of a long prompt."""

    repack: bool = True
    mmap: bool = True
    flash_attn: str = "auto"
    chunk: int = 512

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Options:
        """Options of their texts.

        Raises:
            UnknownNameError: no such option.
            InvalidValueError: a value that the option does not take.
        """
        for key, value in options.items():
            if key not in _OPTIONS:
                raise UnknownNameError("option", key, _OPTIONS)
            if _OPTIONS[key] and value not in _OPTIONS[key]:
                raise InvalidValueError(f"option {key} is one of {', '.join(_OPTIONS[key])}, not {value!r}")
        chunk = options.get("chunk", "512")
        if not chunk.isdecimal() or not 1 <= int(chunk) <= 8192:
            raise InvalidValueError(f"option chunk is a number of tokens from 1 to 8192, not {chunk!r}")
        return cls(
            repack=options.get("repack", "on") == "on",
            mmap=options.get("mmap", "on") == "on",
            flash_attn=options.get("flash-attn", "auto"),
            chunk=int(chunk),
        )


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
