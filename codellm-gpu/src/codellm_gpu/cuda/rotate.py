"""Queries and keys of a chunk, normed where the model norms them and rotated, in place: one kernel.

A program has one head of some tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    import torch

    from codellm_gpu.cuda.place import HeadNorms

ROWS = 16
"""Tokens of a program."""


def rotate(
    qkv: torch.Tensor,  # [T, N + 2 KV, D], contiguous
    kv_heads: int,
    start: int,
    rotary: tuple[torch.Tensor, torch.Tensor],  # float32 [length, D / 2] each
    norms: HeadNorms | None,
) -> None:
    """Norm and rotate the queries and keys of tokens at the positions from `start` on; values stay as they are.

    Rounded where the decoder rounds: after the norm, after its weight and after the rotation.
    """
    count, heads, head_dim = qkv.shape
    cos, sin = rotary
    _rotate[(triton.cdiv(count, ROWS), heads - kv_heads)](
        qkv=qkv,
        count=count,
        start=start,
        cos=cos,
        sin=sin,
        weight=qkv if norms is None else norms.weight,
        epsilon=0.0 if norms is None else norms.epsilon,
        HEADS=heads - 2 * kv_heads,
        KV=kv_heads,
        D=head_dim,
        NORM=norms is not None,
        ROWS=ROWS,
        BLOCK=triton.next_power_of_2(head_dim // 2),
        num_warps=4,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
    )


@triton.jit(do_not_specialize=["count", "start"])  # type: ignore[untyped-decorator]
def _rotate(
    qkv: tl.tensor,
    count: int,
    start: int,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    epsilon: float,
    HEADS: tl.constexpr,
    KV: tl.constexpr,
    D: tl.constexpr,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row, head = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    pair = tl.arange(0, BLOCK)
    mask = (row < count)[:, None] & (pair < D // 2)[None, :]
    kind = qkv.dtype.element_ty
    at = qkv + row[:, None].to(tl.int64) * ((HEADS + 2 * KV) * D) + head * D + pair[None, :]
    x = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(at + D // 2, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / D + epsilon)[:, None]
        gains = weight + tl.where(head < HEADS, 0, D) + pair
        first = tl.load(gains, mask=pair < D // 2, other=0.0).to(tl.float32)[None, :]
        second = tl.load(gains + D // 2, mask=pair < D // 2, other=0.0).to(tl.float32)[None, :]
        x = ((x * scale).to(kind).to(tl.float32) * first).to(kind).to(tl.float32)
        y = ((y * scale).to(kind).to(tl.float32) * second).to(kind).to(tl.float32)
    table = (start + row)[:, None] * (D // 2) + pair[None, :]
    c = tl.load(cos + table, mask=mask, other=0.0)
    s = tl.load(sin + table, mask=mask, other=0.0)
    tl.store(at, (x * c - y * s).to(kind), mask=mask)
    tl.store(at + D // 2, (y * c + x * s).to(kind), mask=mask)
