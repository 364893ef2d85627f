"""What every backend on transformers' own models is: a subclass says which device it is for. torch is imported late."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm.backend import Availability, Backend
from codellm.options import Option, count, read
from codellm.prefix_cache import TORCH
from codellm.torch import bitsandbytes, gptq

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec
    from codellm.torch.quantization import Quantization
    from codellm.torch.transformers_engine import TransformersEngine


class TransformersBackend(Backend):
    """Runs safetensors of StarCoder2, Llama, Qwen2 and Qwen3 with transformers' own forward pass."""

    formats: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    devices: ClassVar[tuple[str, ...]]
    """Where it runs, by default on the first."""
    attentions: ClassVar[tuple[str, ...]] = ("sdpa", "eager")
    """What `attn_implementation` may be, the default first."""
    options: ClassVar[Mapping[str, Option[Any]]] = {
        "chunk": count(
            None,
            "tokens",
            1,
            1 << 16,
            otherwise="512 on a CPU, 2048 on a GPU",
            help="Tokens of a prompt that are computed at once.",
        ),
        "prefix_cache": TORCH,
        **bitsandbytes.OPTIONS,
        **gptq.OPTIONS,
    }
    remedy: ClassVar[str]
    """The command that installs what it needs."""

    def availability(self) -> Availability:
        return installed(("torch", "transformers"), self.remedy)

    def schemes(self) -> tuple[Scheme, ...]:
        return bitsandbytes.SCHEMES + gptq.SCHEMES

    def quantization(self, spec: LoadSpec, source: ModelSource, options: Mapping[str, Any]) -> Quantization | None:
        """The scheme that `source` is stored in, or that of `spec`, with its options; None without one.

        Raises:
            BackendUnavailableError: it needs what is not installed.
        """
        name = source.scheme or spec.scheme
        scheme = next((scheme for scheme in self.schemes() if scheme.name == name), None)
        if scheme is None:
            return None
        found: Quantization
        if scheme in gptq.SCHEMES:
            found = gptq.Gptq(scheme, options, source)
        elif source.scheme is not None:
            found = bitsandbytes.StoredBitsAndBytes(scheme, options, source.config["quantization_config"])
        else:
            found = bitsandbytes.BitsAndBytes(scheme, options)
        found.require(self.remedy)
        return found

    def limit(self, options: Mapping[str, Any]) -> int | None:
        """Bytes of the device that this process may take; None for all."""
        return None

    def engine(self, attention: str) -> type[TransformersEngine]:
        """What computes with `attention`; imports torch."""
        from codellm.torch.transformers_engine import TransformersEngine

        return TransformersEngine

    def load(self, spec: LoadSpec, source: ModelSource) -> Model:
        quantized = source.scheme in {scheme.name for scheme in bitsandbytes.SCHEMES}  # how, its file says
        options = read(spec.options, self.options, None if quantized else source.scheme or spec.scheme)
        quantization = self.quantization(spec, source, options)
        from codellm.torch.transformers_load import load_transformers

        return load_transformers(self, spec, source, options, quantization)


def installed(packages: tuple[str, ...], remedy: str) -> Availability:
    """Availability by `packages`, of which `remedy` brings what is missing; none of them is imported."""
    lacks = [package for package in packages if importlib.util.find_spec(package) is None]
    if lacks:
        return Availability(False, f"{' and '.join(lacks)} not installed", remedy, optional=True)
    return Availability(True)
