"""The backend `transformers-cpu`: the plain reference, as everybody runs it, with bitsandbytes' schemes."""

from __future__ import annotations

from typing import ClassVar

from codellm.torch.transformers_backend import TransformersBackend
from codellm_cpu.torch.extra import REMEDY, bandwidth


class TransformersCpuBackend(TransformersBackend):
    """Runs safetensors on the CPU with transformers' own forward pass."""

    name: ClassVar[str] = "transformers-cpu"
    preference: ClassVar[int] = 5
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    remedy: ClassVar[str] = REMEDY

    def bandwidth(self, device: str) -> float | None:
        return bandwidth(device)
