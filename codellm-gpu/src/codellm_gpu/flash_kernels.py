"""The kernels of flash-attn, and what they run on: known without transformers, which takes seconds to import."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import attrs
import torch

from codellm.errors import BackendUnavailableError, InvalidValueError

REMEDY = 'pip install "codellm-gpu[flash-attn]" --no-build-isolation'
CAPABILITY = (8, 0)
"""Ampere, the first that the kernels are compiled for (README of Dao-AILab/flash-attention)."""


@attrs.frozen
class Kernels:
    """The two functions of flash-attn: for chunks and for single tokens."""

    chunk: Callable[..., torch.Tensor]
    step: Callable[..., torch.Tensor]


def kernels() -> Kernels:
    """Kernels of flash-attn, which is imported now."""
    from flash_attn import flash_attn_func, flash_attn_with_kvcache

    return Kernels(flash_attn_func, flash_attn_with_kvcache)


def require(device: torch.device, dtype: torch.dtype) -> None:
    """See that the kernels run on `device` and in `dtype`.

    Raises:
        BackendUnavailableError: flash-attn is not installed, or the GPU is too old.
        InvalidValueError: they never do.
    """
    if device.type != "cuda":
        raise InvalidValueError(f"flash_attention_2 runs on the device cuda, not {device}; take sdpa there")
    if importlib.util.find_spec("flash_attn") is None:
        raise BackendUnavailableError(f"flash_attention_2 needs flash-attn, which is not installed; {REMEDY}")
    if dtype == torch.float32:
        raise InvalidValueError("flash_attention_2 computes in float16 or bfloat16, not float32; take sdpa for that")
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise BackendUnavailableError(
            f"flash_attention_2 needs a GPU of compute capability 8.0, and {name} has {found[0]}.{found[1]}; take sdpa"
        )
