"""Prompts in chunks: thousands of rows, which torch's products of matrices take best, with little between them.

T tokens of a chunk, H hidden size, N query heads, KV key-value heads, D the head_dim, F intermediate size. A layer is
four products, attention and four passes over what lies between them: two of adding and norming, one of rotating, one of
the activation.
"""

from __future__ import annotations

from typing import cast

import torch

from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.torch.cache import Cache, join
from codellm.torch.decoder import Decoder, FeedForward, Layer
from codellm_gpu.cuda.activation import activate
from codellm_gpu.cuda.chunk_attention import Attend
from codellm_gpu.cuda.norm import add_norm
from codellm_gpu.cuda.place import HeadNorms
from codellm_gpu.cuda.rotate import rotate
from codellm_gpu.cuda.sums import Sums
from codellm_gpu.flash_kernels import require

ATTENTIONS = ("sdpa", "flash_attention_2")


class Prefill:
    """Computes chunks of prompts by `decoder`'s modules into `cache`, their attention by `attend`."""

    def __init__(self, decoder: Decoder, cache: Cache, attend: Attend) -> None:
        self.decoder, self.cache = decoder, cache
        self._attend = attend
        self._layers = [cast("Layer", layer) for layer in decoder.layers]
        self._norms = [HeadNorms.of(layer.attention) for layer in self._layers]

    def hidden(self, slot: int, ids: torch.Tensor, start: int) -> torch.Tensor:
        """Compute `ids` [T] of `slot`, at the positions from `start` on → the last layer's output [T, H].

        Their keys and values go into the cache, which holds those before them. The host does not wait for the device.
        """
        residual: torch.Tensor = self.decoder.embedding(ids)  # [T, H]
        normed = torch.empty_like(residual)
        added: Sums | None = None
        for number, layer in enumerate(self._layers):
            add_norm(residual, added, layer.attention_norm, normed, len(ids))
            added = Sums(self._attention(number, normed, slot, start)[None])
            add_norm(residual, added, layer.feed_forward_norm, normed, len(ids))
            added = Sums(_fed_forward(layer.feed_forward, normed)[None])
        return residual if added is None else residual.add_(added.parts[0])

    def _attention(self, number: int, x: torch.Tensor, slot: int, start: int) -> torch.Tensor:
        """Attention of the layer `number` to `x` [T, H], and its output's projection → [T, H]."""
        attention, decoder, cache = self._layers[number].attention, self.decoder, self.cache
        kv_heads = attention.kv_heads
        qkv = attention.qkv(x).view(len(x), -1, attention.head_dim)  # [T, N + 2 KV, D]
        rotate(qkv, kv_heads, start, (decoder.cos, decoder.sin), self._norms[number])
        q, k, v = qkv.split([qkv.shape[1] - 2 * kv_heads, kv_heads, kv_heads], dim=1)
        keys, values = join(cache.keys[number][slot], k, start), join(cache.values[number][slot], v, start)
        projected: torch.Tensor = attention.o_proj(self._attend(q, keys, values, cache.window))
        return projected


def _fed_forward(feed_forward: FeedForward, x: torch.Tensor) -> torch.Tensor:
    """Compute `x` [T, H] → [T, H]: a gate and what it lets through are read in one pass."""
    if not feed_forward.gated:
        plain: torch.Tensor = feed_forward(x)
        return plain
    both = feed_forward.up(x)  # [T, 2 F]
    active = both.new_empty(len(x), both.shape[1] // 2)
    activate(Sums(both[None]), active, len(x), gated=True)
    projected: torch.Tensor = feed_forward.down(active)
    return projected


def implementation(attention: str | None, device: torch.device, dtype: torch.dtype) -> str:
    """The attention that is computed where `attention` is asked for: without one flash-attn's where it runs, else sdpa.

    Raises:
        BackendUnavailableError: flash-attn is asked for and not installed, or the GPU is too old.
        InvalidValueError: there is no such attention, or it does not run on `device` or in `dtype`.
    """
    if attention is None:
        return "flash_attention_2" if _has_flash_attn(device, dtype) else "sdpa"
    if attention not in ATTENTIONS:
        raise InvalidValueError(
            f"torch-cuda has no attention {attention}; take one of {', '.join(ATTENTIONS)}, or transformers-cuda"
        )
    if attention == "flash_attention_2":
        require(device, dtype)
    return attention


def _has_flash_attn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether flash-attn runs on `device` and in `dtype`: one that was compiled for another torch is not imported."""
    try:
        require(device, dtype)
        import flash_attn  # noqa: F401
    except (BackendUnavailableError, InvalidValueError, ImportError):
        return False
    return True
