"""Products of a few rows with weights of 8 and 4 bits, at the pace of the memory that holds them.

M rows, N outputs, K inputs, G = 128 inputs that share a scale of 4 bits. A program multiplies a tile of outputs by all
rows, the weights first, since a tensor core's tall side is then theirs. Where tiles are too few to keep the memory busy
several programs share the inputs of one, and a second kernel adds their sums up in their order, so that a product comes
out the same each time.
"""

from __future__ import annotations

import attrs
import torch
import triton
import triton.language as tl

from codellm_gpu.cuda.rounding import GROUP

PROGRAMS = {64: 512, 128: 264}
"""Programs of tiles of so many outputs that are on a large GPU at once: about four and two a multiprocessor."""
INPUTS = 128
"""Inputs of a step of a program."""


@attrs.frozen
class Tiles:
    """How a product is cut: rows and outputs of a tile, parts of the inputs, steps of a part, warps and stages."""

    rows: int
    outputs: int
    parts: int
    steps: int
    warps: int
    stages: int


def tiles_of(rows: int, outputs: int, inputs: int) -> Tiles:
    """The tiles of a product: the more rows, the more outputs share the reading of them.

    They depend on the shapes alone, so that a product is cut the same way in every run.
    """
    height = max(16, triton.next_power_of_2(rows))
    width, warps, stages = (64, 4, 4) if height == 16 else (128, 8, 4 if height == 32 else 3)
    steps = triton.cdiv(inputs, INPUTS)
    parts = max(1, min(PROGRAMS[width] // triton.cdiv(outputs, width), steps // 2))
    each = triton.cdiv(steps, parts)
    return Tiles(height, width, triton.cdiv(steps, each), each, warps, stages)


def int8_parts(x: torch.Tensor, levels: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Multiply `x` [M, K] of 2 bytes, M up to 64, by weights as `Int8Linear` has them → float32 [S, M, N]."""
    (rows, inputs), outputs = x.shape, len(levels)
    tiles = tiles_of(rows, outputs, inputs)
    out = x.new_empty(tiles.parts, rows, outputs, dtype=torch.float32)
    _int8[(triton.cdiv(outputs, tiles.outputs), tiles.parts)](
        x=x,
        levels=levels,
        scales=scales,
        out=out,
        rows=rows,
        inputs=inputs,
        outputs=outputs,
        each=tiles.steps * INPUTS,
        ROWS=tiles.rows,
        OUTPUTS=tiles.outputs,
        INPUTS=INPUTS,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
    )
    return out


def int4_parts(x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None) -> torch.Tensor:
    """Multiply `x` [M, K] of 2 bytes, M up to 64, by weights as `Int4Linear` has them → float32 [S, M, N]."""
    (rows, inputs), outputs = x.shape, len(packed)
    tiles = tiles_of(rows, outputs, inputs)
    out = x.new_empty(tiles.parts, rows, outputs, dtype=torch.float32)
    _int4[(triton.cdiv(outputs, tiles.outputs), tiles.parts)](
        x=x,
        packed=packed,
        scales=scales,
        zeros=zeros,
        out=out,
        rows=rows,
        groups=inputs // GROUP,
        outputs=outputs,
        each=tiles.steps,
        ROWS=tiles.rows,
        OUTPUTS=tiles.outputs,
        HALF=GROUP // 2,
        ZEROS=zeros is not None,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        enable_fp_fusion=True,
    )
    return out


def added(parts: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Add `parts` [S, M, N] up in their order, and `bias` [N] → [M, N] of `dtype`."""
    out = parts.new_empty(parts.shape[1:], dtype=dtype)
    count, block = out.numel(), 256
    _add[(triton.cdiv(count, block),)](
        parts=parts,
        bias=bias,
        out=out,
        count=count,
        outputs=out.shape[1],
        PARTS=len(parts),
        BIAS=bias is not None,
        BLOCK=block,
        enable_fp_fusion=True,
    )
    return out


def int8_floats(levels: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Write out the weights of some outputs of an `Int8Linear`, rounded to `dtype` → [rows, K]."""
    rows, inputs = levels.shape
    out = levels.new_empty(rows, inputs, dtype=dtype)
    block = min(1024, triton.next_power_of_2(inputs))
    _int8_floats[(rows, triton.cdiv(inputs, block))](
        levels=levels, scales=scales, out=out, inputs=inputs, INPUTS=block, enable_fp_fusion=True
    )
    return out


def int4_floats(
    packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Write out the weights of some outputs of an `Int4Linear`, rounded to `dtype` → [rows, K]."""
    rows, groups = scales.shape
    out = packed.new_empty(rows, groups * GROUP, dtype=dtype)
    block = min(16, triton.next_power_of_2(groups))
    _int4_floats[(rows, triton.cdiv(groups, block))](
        packed=packed,
        scales=scales,
        zeros=zeros,
        out=out,
        outputs=scales.stride(1),
        groups=groups,
        GROUPS=block,
        HALF=GROUP // 2,
        ZEROS=zeros is not None,
        enable_fp_fusion=True,
    )
    return out


# Triton looks names up that annotations hold: it finds tl.tensor, and not typing.Any
@triton.jit  # type: ignore[untyped-decorator]
def _int8(
    x: tl.tensor,
    levels: tl.tensor,
    scales: tl.tensor,
    out: tl.tensor,
    rows: int,
    inputs: int,
    outputs: int,
    each: int,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
) -> None:
    n, m, k = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS), tl.arange(0, ROWS), tl.arange(0, INPUTS)
    is_output, is_row = n < outputs, m < rows
    weights = levels + n[:, None].to(tl.int64) * inputs
    total = tl.zeros((OUTPUTS, ROWS), tl.float32)
    first = tl.program_id(1) * each
    for start in range(first, tl.minimum(first + each, inputs), INPUTS):
        at = start + k
        is_input = at < inputs
        level = tl.load(weights + at[None, :], mask=is_output[:, None] & is_input[None, :], other=0)
        row = tl.load(x + m[:, None] * inputs + at[None, :], mask=is_row[:, None] & is_input[None, :], other=0.0)
        # added to the bits of 2^23, whose last is worth one, a small number is a float without a slow conversion
        weight = (level.to(tl.int32) + 0x4B000080).to(tl.float32, bitcast=True) - 8388736.0  # 2^23 + 128
        total = tl.dot(weight.to(row.dtype), tl.trans(row), total)
    total *= tl.load(scales + n, mask=is_output, other=0.0)[:, None]
    _store(total, out, n, m, rows, outputs)


@triton.jit  # type: ignore[untyped-decorator]
def _int4(
    x: tl.tensor,
    packed: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    out: tl.tensor,
    rows: int,
    groups: int,
    outputs: int,
    each: int,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    HALF: tl.constexpr,
    ZEROS: tl.constexpr,
) -> None:
    n, m, k = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS), tl.arange(0, ROWS), tl.arange(0, HALF)
    is_output, is_row = n < outputs, m < rows
    weights = packed + n[:, None].to(tl.int64) * groups * HALF + k[None, :]
    values = x + m[:, None] * groups * (2 * HALF) + k[None, :]
    total = tl.zeros((OUTPUTS, ROWS), tl.float32)
    first = tl.program_id(1) * each
    last = tl.minimum(first + each, groups)
    # what a group's sum is multiplied by is asked for while the group before is computed
    next_scale = tl.load(scales + first * outputs + n, mask=is_output, other=0.0)
    zero = tl.full((OUTPUTS,), 8388616.0, tl.float32)  # 2^23 + 8
    if ZEROS:
        next_zero = tl.load(zeros + first * outputs + n, mask=is_output, other=0)
    for group in range(first, last):
        scale = next_scale.to(tl.float32)
        following = tl.minimum(group + 1, last - 1) * outputs + n
        next_scale = tl.load(scales + following, mask=is_output, other=0.0)
        if ZEROS:
            zero = _float(next_zero)
            next_zero = tl.load(zeros + following, mask=is_output, other=0)
        codes = tl.load(weights + group * HALF, mask=is_output[:, None], other=0)
        low = tl.load(values + group * (2 * HALF), mask=is_row[:, None], other=0.0)
        high = tl.load(values + group * (2 * HALF) + HALF, mask=is_row[:, None], other=0.0)
        part = tl.dot((_float(codes & 15) - zero[:, None]).to(low.dtype), tl.trans(low))
        part = tl.dot((_float(codes >> 4) - zero[:, None]).to(high.dtype), tl.trans(high), part)
        total += part * scale[:, None]
    _store(total, out, n, m, rows, outputs)


@triton.jit  # type: ignore[untyped-decorator]
def _float(codes: tl.tensor) -> tl.tensor:
    """2^23 plus codes from 0 to 255, in float32: put into its last bits, without a slow conversion."""
    return (codes.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _store(total: tl.tensor, out: tl.tensor, n: tl.tensor, m: tl.tensor, rows: int, outputs: int) -> None:
    """Write the sums of a tile [OUTPUTS, ROWS] to its part of the output."""
    at = (tl.program_id(1) * rows + m).to(tl.int64)[:, None] * outputs + n[None, :]
    tl.store(out + at, tl.trans(total), mask=(m < rows)[:, None] & (n < outputs)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _add(
    parts: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    count: int,
    outputs: int,
    PARTS: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.load(parts + at, mask=inside, other=0.0)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * count + at, mask=inside, other=0.0)
    if BIAS:
        total += tl.load(bias + at % outputs, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _int8_floats(levels: tl.tensor, scales: tl.tensor, out: tl.tensor, inputs: int, INPUTS: tl.constexpr) -> None:
    n, k = tl.program_id(0).to(tl.int64), tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    weight = tl.load(levels + n * inputs + k, mask=k < inputs, other=0).to(tl.float32) * tl.load(scales + n)
    tl.store(out + n * inputs + k, weight.to(out.dtype.element_ty), mask=k < inputs)


@triton.jit  # type: ignore[untyped-decorator]
def _int4_floats(
    packed: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    out: tl.tensor,
    outputs: int,
    groups: int,
    GROUPS: tl.constexpr,
    HALF: tl.constexpr,
    ZEROS: tl.constexpr,
) -> None:
    n, group = tl.program_id(0).to(tl.int64), (tl.program_id(1) * GROUPS + tl.arange(0, GROUPS))[:, None]
    inside = group < groups
    k = tl.arange(0, HALF)[None, :]
    codes = tl.load(packed + (n * groups + group) * HALF + k, mask=inside, other=0)
    scale = tl.load(scales + group * outputs + n, mask=inside, other=0.0).to(tl.float32)
    zero = tl.full((1, 1), 8.0, tl.float32)
    if ZEROS:
        zero = tl.load(zeros + group * outputs + n, mask=inside, other=0).to(tl.float32)
    at = out + (n * groups + group) * (2 * HALF) + k
    kind = out.dtype.element_ty
    tl.store(at, (((codes & 15).to(tl.float32) - zero) * scale).to(kind), mask=inside)
    tl.store(at + HALF, (((codes >> 4).to(tl.float32) - zero) * scale).to(kind), mask=inside)
