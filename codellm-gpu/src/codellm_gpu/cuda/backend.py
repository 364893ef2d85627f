"""The backend `torch-cuda`: codellm's own decoder on one NVIDIA GPU, as fast as its memory allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm.backend import Availability, Backend
from codellm.options import Option, amount, choice, count, read
from codellm.prefix_cache import TORCH
from codellm.torch.transformers_backend import installed
from codellm_gpu.backend import REMEDY, bandwidth, driver
from codellm_gpu.cuda.schemes import SCHEMES

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec


class TorchCudaBackend(Backend):
    """Runs safetensors of StarCoder2, Llama, Qwen2 and Qwen3 on one NVIDIA GPU."""

    name: ClassVar[str] = "torch-cuda"
    formats: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    preference: ClassVar[int] = 40
    device: ClassVar[str | None] = "cuda"
    options: ClassVar[Mapping[str, Option[Any]]] = {
        "chunk": count(
            None,
            "tokens",
            1,
            1 << 16,
            otherwise="2048",
            help="Tokens of a prompt that are computed at once.",
        ),
        "kernel": choice(
            "auto",
            "on",
            "off",
            help="Whether a step of one sequence is one kernel: where it can be, always (or say why not), or never.",
        ),
        "memory_gib": amount(
            None,
            "a size in GiB",
            otherwise="all",
            help="The most of the GPU's memory that this process takes, as if the GPU were a smaller one.",
        ),
        "prefix_cache": TORCH,
    }

    def availability(self) -> Availability:
        packages = installed(("torch", "triton"), REMEDY)
        return driver() if packages.ok else packages

    def schemes(self) -> tuple[Scheme, ...]:
        return SCHEMES

    def load(self, spec: LoadSpec, source: ModelSource) -> Model:
        options = read(spec.options, self.options, source.scheme or spec.scheme)
        from codellm_gpu.cuda.load import load_cuda

        return load_cuda(spec, source, options)

    def bandwidth(self, device: str) -> float | None:
        return bandwidth(device)
