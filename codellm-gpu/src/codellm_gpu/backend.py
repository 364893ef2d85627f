"""The backend `transformers-cuda`: transformers' own forward pass on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm.backend import Availability
from codellm.errors import MachineError
from codellm.options import Option, amount
from codellm.system.gpu import gpus
from codellm.torch.transformers_backend import TransformersBackend

if TYPE_CHECKING:
    from codellm.torch.transformers_engine import TransformersEngine

REMEDY = "pip install codellm-gpu"
DRIVER = "install NVIDIA's driver, or run on a machine that has such a GPU; codellm doctor lists what is found"


class TransformersCudaBackend(TransformersBackend):
    """Runs safetensors of StarCoder2, Llama, Qwen2 and Qwen3 on CUDA; on the CPU where that is asked for."""

    name: ClassVar[str] = "transformers-cuda"
    preference: ClassVar[int] = 30
    device: ClassVar[str | None] = "cuda"
    devices: ClassVar[tuple[str, ...]] = ("cuda", "cpu")
    attentions: ClassVar[tuple[str, ...]] = ("sdpa", "eager", "flash_attention_2")
    options: ClassVar[Mapping[str, Option[Any]]] = {
        **TransformersBackend.options,
        "memory_gib": amount(
            None,
            "a size in GiB",
            otherwise="all",
            help="The most of each GPU's memory that this process takes, as if the GPU were a smaller one.",
        ),
    }
    remedy: ClassVar[str] = REMEDY

    def availability(self) -> Availability:
        packages = super().availability()
        return driver() if packages.ok else packages

    def limit(self, options: Mapping[str, Any]) -> int | None:
        size = options["memory_gib"]
        return None if size is None else int(size * (1 << 30))

    def engine(self, attention: str) -> type[TransformersEngine]:
        if attention == "flash_attention_2":
            from codellm_gpu.flash import FlashEngine

            return FlashEngine
        return super().engine(attention)

    def bandwidth(self, device: str) -> float | None:
        return bandwidth(device)


def bandwidth(device: str) -> float | None:
    """What the GPU reads from its memory, measured once per process (about 0.1 s once torch is there)."""
    if device == "cpu":
        from codellm.system.machine import default_threads, read_bandwidth

        return read_bandwidth(default_threads())
    import torch

    from codellm.torch import device as devices

    return devices.read_bandwidth(torch.device("cuda")) if torch.cuda.is_available() else None


def driver() -> Availability:
    """Availability by what NVIDIA's driver lists: torch is not asked, since importing it takes seconds."""
    try:
        found = gpus()
    except MachineError as error:
        return Availability(False, str(error), DRIVER)
    if not found:
        return Availability(False, "no NVIDIA GPU is found", DRIVER, elsewhere=frozenset({"cpu"}))
    return Availability(True)
