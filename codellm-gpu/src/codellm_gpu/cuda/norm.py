"""What a layer adds to the residual stream, and the norm that follows, in one kernel; a program has a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import nn

from codellm_gpu.cuda.sums import Sums, added


def add_norm(residual: torch.Tensor, sums: Sums | None, norm: nn.Module, out: torch.Tensor, rows: int) -> None:
    """Add `sums` to the first rows of `residual` [M, H], in place, and write their norm to `out` [M, H].

    Rounded where torch rounds: the projection's output, the stream, and what an RMS norm multiplies by its weight.
    """
    width = residual.shape[1]
    block = triton.next_power_of_2(width)
    centred = isinstance(norm, nn.LayerNorm)
    arguments = Sums(residual[None]).arguments | {"PARTS": 0} if sums is None else sums.arguments
    _add_norm[(rows,)](
        residual=residual,
        weight=norm.weight,
        shift=norm.bias if centred else norm.weight,
        out=out,
        width=width,
        epsilon=norm.eps,
        CENTRED=centred,
        BLOCK=block,
        num_warps=min(16, max(1, block // 512)),
        **arguments,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
    )


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm(
    residual: tl.tensor,
    parts: tl.tensor,
    stride: int,
    bias: tl.tensor,
    weight: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    width: int,
    epsilon: float,
    PARTS: tl.constexpr,
    BIAS: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    gain = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(residual + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    if PARTS > 0:
        output = added(parts, stride, bias, row, columns, width, mask, PARTS, BIAS)
        x += output.to(residual.dtype.element_ty).to(tl.float32)
        rounded = x.to(residual.dtype.element_ty)
        tl.store(residual + row * width + columns, rounded, mask=mask)
        x = rounded.to(tl.float32)
    if CENTRED:
        x = tl.where(mask, x - tl.sum(x, 0) / width, 0.0)
    x *= tl.rsqrt(tl.sum(x * x, 0) / width + epsilon)
    if CENTRED:
        x = x * gain + tl.load(shift + columns, mask=mask, other=0.0).to(tl.float32)
    else:
        x = x.to(residual.dtype.element_ty).to(tl.float32) * gain
    tl.store(out + row * width + columns, x.to(out.dtype.element_ty), mask=mask)
