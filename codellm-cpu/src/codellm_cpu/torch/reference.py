"""The backend `transformers-cpu`: the plain reference, as everybody runs it, with bitsandbytes' schemes."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from codellm.backend import Availability, Backend
from codellm.errors import BackendUnavailableError
from codellm.scheme import Scheme
from codellm_cpu.torch.extra import REMEDY, bandwidth, missing
from codellm_cpu.torch.options import choice

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec

SCHEMES = (
    Scheme(name="bnb-int8", bits=8, applies="load", description="LLM.int8() of bitsandbytes"),
    Scheme(name="bnb-nf4", bits=4.5, applies="load", description="NormalFloat of bitsandbytes, blocks of 64"),
)


class TransformersCpuBackend(Backend):
    """Runs safetensors of StarCoder2, Llama and Qwen2 with transformers' own forward pass."""

    name: ClassVar[str] = "transformers-cpu"
    formats: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    preference: ClassVar[int] = 5

    def availability(self) -> Availability:
        return missing("torch", "transformers")

    def schemes(self) -> tuple[Scheme, ...]:
        return SCHEMES

    def load(self, spec: LoadSpec, source: ModelSource) -> Model:
        from codellm_cpu.torch.load import load_transformers

        choice(spec.options)
        scheme = next((scheme for scheme in SCHEMES if scheme.name == spec.scheme), None)
        if scheme is not None and not all(map(importlib.util.find_spec, ("bitsandbytes", "accelerate"))):
            raise BackendUnavailableError(f"{scheme.name} needs bitsandbytes and accelerate; {REMEDY}")
        return load_transformers(spec, source, scheme)

    def bandwidth(self, device: str) -> float | None:
        return bandwidth(device)
