"""Attention of a chunk of a prompt to itself and to what lies before it: no mask is made where a kernel needs none.

T tokens of a chunk, S tokens that are seen, its own the last of them, N query heads, KV key-value heads, D the
head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch.nn import functional

from codellm_gpu.flash_kernels import CAPABILITY, kernels

BLOCK = 512
"""Queries that share a mask where one is needed: it is as wide as what they see together."""
MULTIPLE, GREATEST = 8, 256
"""What the head_dim is a multiple of, and its most, in torch's own FlashAttention-2."""


class Attend(Protocol):
    """A way to compute attention."""

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
        """Attend with `q` [T, N, D] to `k` and `v` [S, KV, D], with each query to its last `window` → [T, N * D]."""


def chosen(attention: str, keys: torch.Tensor) -> Attend:
    """The way that is called `attention` (flash_attention_2 or sdpa), for keys as `keys` [..., D] are."""
    if attention == "flash_attention_2":
        return FlashAttn(kernels().chunk)
    return torch_flash if has_torch_flash(keys) else masked


class FlashAttn:
    """FlashAttention-2 by the `kernel` of the package flash-attn for chunks."""

    def __init__(self, kernel: Callable[..., torch.Tensor]) -> None:
        self._kernel = kernel

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
        sides = (window - 1, 0) if len(k) > window else (-1, -1)
        return self._kernel(q[None], k[None], v[None], causal=True, window_size=sides)[0].flatten(1)


def has_torch_flash(keys: torch.Tensor) -> bool:
    """Whether torch's own FlashAttention-2 takes `keys` [..., D]."""
    return (
        keys.is_cuda
        and keys.itemsize == 2
        and keys.shape[-1] % MULTIPLE == 0
        and keys.shape[-1] <= GREATEST
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(keys.device) >= CAPABILITY
    )


def torch_flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """FlashAttention-2 as torch brings it, called as scaled_dot_product_attention calls it.

    That one has neither a window nor, before a mask is written out, queries that end where the keys do.
    """
    cut = len(k) > window
    out: torch.Tensor = torch.ops.aten._flash_attention_forward(
        q[None],
        k[None],
        v[None],
        None,
        None,
        len(q),
        len(k),
        0.0,
        True,
        False,
        window_size_left=window - 1 if cut else -1,
        window_size_right=0 if cut else -1,
    )[0]
    return out[0].flatten(1)


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """Scaled dot-product attention of torch with masks, `BLOCK` queries at a time: for float32, and on a CPU."""
    length, heads, head_dim = q.shape
    before, kv_heads = len(k) - length, k.shape[1]
    group = heads // kv_heads
    grouped = q.view(length, kv_heads, group, head_dim).permute(1, 2, 0, 3)  # [KV, N / KV, T, D]
    spread = [part.transpose(0, 1)[:, None].expand(-1, group, -1, -1) for part in (k, v)]  # the same: no key is copied
    out = q.new_empty(length, kv_heads, group, head_dim)
    for begin in range(0, length, BLOCK):
        end = min(begin + BLOCK, length)
        seen = slice(max(0, before + begin - window + 1), before + end)
        query = torch.arange(before + begin, before + end, device=q.device)[:, None]
        key = torch.arange(seen.start, seen.stop, device=q.device)
        mask = (key <= query) & (key > query - window)
        keys, values = (part[:, :, seen] for part in spread)
        attended = functional.scaled_dot_product_attention(grouped[:, :, begin:end], keys, values, attn_mask=mask)
        out[begin:end] = attended.permute(2, 0, 1, 3)
    return out.flatten(1)
