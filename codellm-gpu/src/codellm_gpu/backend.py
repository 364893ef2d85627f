"""The backend `transformers-cuda`: transformers' own forward pass on an NVIDIA GPU."""

from __future__ import annotations

from typing import ClassVar

from codellm.backend import Availability
from codellm.errors import MachineError
from codellm.gpu import gpus
from codellm.torch.transformers_backend import TransformersBackend

REMEDY = "pip install codellm-gpu"
DRIVER = "install NVIDIA's driver, or run on a machine that has such a GPU; codellm doctor lists what is found"


class TransformersCudaBackend(TransformersBackend):
    """Runs safetensors of StarCoder2, Llama and Qwen2 on CUDA; on the CPU where that is asked for."""

    name: ClassVar[str] = "transformers-cuda"
    preference: ClassVar[int] = 30
    devices: ClassVar[tuple[str, ...]] = ("cuda", "cpu")
    remedy: ClassVar[str] = REMEDY

    def availability(self) -> Availability:
        packages = super().availability()
        return driver() if packages.ok else packages


def driver() -> Availability:
    """Available where NVIDIA's driver lists a GPU: torch is not asked, since importing it takes seconds."""
    try:
        found = gpus()
    except MachineError as error:
        return Availability(False, str(error), DRIVER)
    if not found:
        return Availability(False, "no NVIDIA GPU is found", DRIVER, elsewhere=frozenset({"cpu"}))
    return Availability(True)
