"""Queries, keys and values of a step: normed where the model norms them, rotated, and keys and values into the cache.

A row is a token of some slot at some position; a program has one head of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
import torch
import triton
import triton.language as tl

from codellm_gpu.cuda.sums import Sums, added

if TYPE_CHECKING:
    from codellm.torch.decoder import Attention


@attrs.frozen(eq=False)
class Rows:
    """What the rows of a step are: int32 [2, M], the slots and then the positions; a negative position is no token."""

    places: torch.Tensor

    def __len__(self) -> int:
        return self.places.shape[1]


@attrs.frozen(eq=False)
class HeadNorms:
    """The norms of queries and keys over a head: weights [2, D] in the model's type, and their epsilon."""

    weight: torch.Tensor
    epsilon: float

    @classmethod
    def of(cls, attention: Attention) -> Self | None:
        """Those of `attention`, which Qwen3 has."""
        norms: list[Any] = [attention.q_norm, attention.k_norm]
        if None in norms:
            return None
        return cls(torch.stack([norm.weight for norm in norms]), norms[0].eps)


def place(
    qkv: Sums,  # [M, (N + 2 KV) * D]
    rows: Rows,
    rotary: tuple[torch.Tensor, torch.Tensor],  # float32 [length, D / 2] each
    norms: HeadNorms | None,
    queries: torch.Tensor,  # [M, N * D]
    keys: torch.Tensor,  # [P, R, KV, D]
    values: torch.Tensor,
) -> None:
    """Write the rows' queries to `queries`, their keys and values to the cells of their positions."""
    _, ring, kv_heads, head_dim = keys.shape
    heads = queries.shape[1] // head_dim
    cos, sin = rotary
    _place[(len(rows), heads + 2 * kv_heads)](
        places=rows.places,
        count=len(rows),
        cos=cos,
        sin=sin,
        weight=queries if norms is None else norms.weight,
        epsilon=0.0 if norms is None else norms.epsilon,
        queries=queries,
        keys=keys,
        values=values,
        ring=ring,
        HEADS=heads,
        KV=kv_heads,
        D=head_dim,
        NORM=norms is not None,
        BLOCK=triton.next_power_of_2(head_dim // 2),
        num_warps=1,
        **qkv.arguments,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
    )


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _place(
    parts: tl.tensor,
    stride: int,
    bias: tl.tensor,
    places: tl.tensor,
    count: int,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    epsilon: float,
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    ring: int,
    HEADS: tl.constexpr,
    KV: tl.constexpr,
    D: tl.constexpr,
    PARTS: tl.constexpr,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row, head = tl.program_id(0), tl.program_id(1)
    slot, position = tl.load(places + row), tl.load(places + count + row)
    kind = queries.dtype.element_ty
    pair = tl.arange(0, BLOCK)
    mask = pair < D // 2
    if position >= 0:
        width = (HEADS + 2 * KV) * D
        first = added(parts, stride, bias, row, head * D + pair, width, mask, PARTS, BIAS).to(kind)
        second = added(parts, stride, bias, row, head * D + D // 2 + pair, width, mask, PARTS, BIAS).to(kind)
        cell = (slot.to(tl.int64) * ring + position % ring) * KV * D
        if head < HEADS + KV:
            x, y = first.to(tl.float32), second.to(tl.float32)
            if NORM:
                scale = tl.rsqrt((tl.sum(x * x, 0) + tl.sum(y * y, 0)) / D + epsilon)
                gains = weight + tl.where(head < HEADS, 0, D) + pair
                x = (x * scale).to(kind).to(tl.float32) * tl.load(gains, mask=mask, other=0.0).to(tl.float32)
                y = (y * scale).to(kind).to(tl.float32) * tl.load(gains + D // 2, mask=mask, other=0.0).to(tl.float32)
                x, y = x.to(kind).to(tl.float32), y.to(kind).to(tl.float32)
            c = tl.load(cos + position * (D // 2) + pair, mask=mask, other=0.0)
            s = tl.load(sin + position * (D // 2) + pair, mask=mask, other=0.0)
            first, second = (x * c - y * s).to(kind), (y * c + x * s).to(kind)
        if head < HEADS:
            target = queries + (row * HEADS + head) * D + pair
        elif head < HEADS + KV:
            target = keys + cell + (head - HEADS) * D + pair
        else:
            target = values + cell + (head - HEADS - KV) * D + pair
        tl.store(target, first, mask=mask)
        tl.store(target + D // 2, second, mask=mask)
