"""FlashAttention-2: its kernels on our cache, in the place of transformers' attention.

They take no mask. A chunk of a prompt is computed with the keys before it in order, which its own join: the kernel
lines both up at their ends (bottom right). A decoded token attends to all cells of its slot, and their order matters
to no sum, since keys are rotated by their positions before they are kept. So a ring of one window of cells is enough:
what a token must not see any more is what it overwrites. The kernel's own window would cost a decoded token 0.37 ms a
layer instead of 0.03 (H200, 8 x 4096 cells of StarCoder2-7B, flash-attn 2.8.3): with one it does not split the keys.

B slots, T tokens of each, N query heads, KV key-value heads, D the head_dim, R cells, S tokens seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers import AttentionInterface

from codellm.torch.cache import Cache, join
from codellm.torch.transformers_engine import CacheLayer, TransformersEngine
from codellm_gpu.flash_kernels import Kernels, kernels, require

NAME = "codellm-ring"
"""Ours among transformers' attentions. What it calls flash_attention_2 would be checked and unpadded by it."""


class FlashEngine(TransformersEngine):
    """Computes attention by the kernels; everything else is transformers'."""

    joins: ClassVar[bool] = True

    def __init__(self, model: Any, cache: Cache, *, vocab_size: int, context_length: int, chunk: int) -> None:
        super().__init__(model, cache, vocab_size=vocab_size, context_length=context_length, chunk=chunk)
        self._kernels = self.kernels()

    @staticmethod
    def kernels() -> Kernels:
        """Kernels of flash-attn, which is imported now."""
        return kernels()

    @staticmethod
    def require(device: torch.device, dtype: torch.dtype) -> None:
        """See that the kernels run on `device` and in `dtype`: see `require`."""
        require(device, dtype)

    @classmethod
    def implementation(cls, attention: str, device: torch.device, dtype: torch.dtype) -> str:
        cls.require(device, dtype)
        AttentionInterface.register(NAME, attend)
        return NAME

    def chunk_layers(self, slot: int, positions: torch.Tensor, start: int) -> tuple[list[CacheLayer], dict[str, Any]]:
        cache = self.cache
        layers: list[CacheLayer] = [
            JoinedLayer(keys[slot], values[slot], start) for keys, values in zip(cache.keys, cache.values, strict=True)
        ]
        cut = start + positions.shape[1] > cache.window
        window = (cache.window - 1, 0) if cut else (-1, -1)
        return layers, {"kernel": functools.partial(self._kernels.chunk, causal=True, window_size=window)}

    def step_layers(self, positions: torch.Tensor, length: int) -> tuple[list[CacheLayer], dict[str, Any]]:
        layers = self.written(self.cache, self.cells(0, self.slots, positions))
        lengths = self.everywhere((positions[:, 0] + 1).clamp_max(self.cache.ring).to(torch.int32))  # [P] each

        def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, softmax_scale: float) -> torch.Tensor:
            return self._kernels.step(q, k, v, cache_seqlens=lengths[q.device], softmax_scale=softmax_scale)

        return layers, {"kernel": kernel}


def attend(
    _module: Any,
    query: torch.Tensor,  # [B, N, T, D]
    key: torch.Tensor,  # [B, KV, S, D]
    value: torch.Tensor,
    _mask: None,
    *,
    scaling: float,
    kernel: Callable[..., torch.Tensor],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention that transformers calls, with the `kernel` that its forward pass was told → [B, T, N, D]."""
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    return kernel(q, k, v, softmax_scale=scaling), None


class JoinedLayer(CacheLayer):
    """A layer that shows a chunk of one slot with what it sees before it, and keeps of it what later tokens see."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, start: int) -> None:
        super().__init__()
        self._keys, self._values = keys, values  # [R, KV, D]
        self._start = start

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep of [1, KV, T, D] the last R, → them behind the tokens before them, in order: [1, KV, S, D]."""
        return self._join(self._keys, keys), self._join(self._values, values)

    def _join(self, ring: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        tokens = new[0].transpose(0, 1).to(ring.dtype)  # [T, KV, D]
        return join(ring, tokens, self._start)[None].transpose(1, 2).to(new.dtype)
