"""The backend `torch-cpu`: our own decoder, as it is, traced or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm.backend import Availability, Backend
from codellm.options import Option, choice, read
from codellm.prefix_cache import TORCH
from codellm.torch.transformers_backend import installed
from codellm_cpu.torch.extra import REMEDY, bandwidth

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec


class TorchCpuBackend(Backend):
    """Runs safetensors of StarCoder2, Llama, Qwen2 and Qwen3 on the CPU."""

    name: ClassVar[str] = "torch-cpu"
    formats: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    preference: ClassVar[int] = 10
    options: ClassVar[Mapping[str, Option[Any]]] = {
        "mode": choice(
            "eager",
            "jit",
            "compile",
            help="How a token is computed: one operation after the other, as a TorchScript trace, or by Inductor.",
        ),
        "prefix_cache": TORCH,
    }

    def availability(self) -> Availability:
        return installed(("torch",), REMEDY)

    def load(self, spec: LoadSpec, source: ModelSource) -> Model:
        from codellm_cpu.torch.load import load_decoder

        return load_decoder(spec, source, **read(spec.options, self.options))

    def bandwidth(self, device: str) -> float | None:
        return bandwidth(device)
