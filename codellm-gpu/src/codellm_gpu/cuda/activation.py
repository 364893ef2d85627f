"""The activation of a feed-forward layer: GELU (the tanh form), or a SiLU gate times what it lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from codellm_gpu.cuda.sums import Sums, added

if TYPE_CHECKING:
    import torch

BLOCK = 512


def activate(sums: Sums, out: torch.Tensor, rows: int, *, gated: bool) -> None:
    """Write the activation of `sums` [M, F], where gated [M, 2 F] (gates first), to the first rows of `out` [M, F]."""
    width = out.shape[1]
    _activate[(rows, triton.cdiv(width, BLOCK))](
        out=out,
        width=width,
        GATED=gated,
        BLOCK=BLOCK,
        num_warps=4,
        **sums.arguments,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
    )


@triton.jit  # type: ignore[untyped-decorator]
def gelu(x: tl.tensor) -> tl.tensor:
    """GELU of float32, the tanh form: x / 2 * (1 + tanh(u)) is x * sigmoid(2 u)."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit  # type: ignore[untyped-decorator]
def silu(x: tl.tensor) -> tl.tensor:
    """SiLU of float32."""
    return x * tl.sigmoid(x)


@triton.jit  # type: ignore[untyped-decorator]
def _activate(
    parts: tl.tensor,
    stride: int,
    bias: tl.tensor,
    out: tl.tensor,
    width: int,
    PARTS: tl.constexpr,
    BIAS: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < width
    total = width * 2 if GATED else width
    first = added(parts, stride, bias, row, columns, total, mask, PARTS, BIAS)
    first = first.to(out.dtype.element_ty).to(tl.float32)  # as torch rounds what the projection gives
    if GATED:
        second = added(parts, stride, bias, row, columns + width, total, mask, PARTS, BIAS)
        second = second.to(out.dtype.element_ty).to(tl.float32)
        active = silu(first).to(out.dtype.element_ty).to(tl.float32) * second
    else:
        active = gelu(first)
    tl.store(out + row * width + columns, active.to(out.dtype.element_ty), mask=mask)
