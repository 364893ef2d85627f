"""Products of few rows with a projection's weights, at the pace of the memory that holds them.

M rows (16, 32 or 64), K inputs, N outputs. A program has a tile of outputs and a part of the inputs; the parts are
added up by the kernel that takes them (see `sums`), in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import attrs
import triton
import triton.language as tl

from codellm_gpu.cuda.activation import gelu, silu

if TYPE_CHECKING:
    import torch


@attrs.frozen
class Tiles:
    """How a product is cut: outputs and inputs of a tile, warps, stages of the pipeline, parts of the inputs.

    `swapped` multiplies the weights by the rows instead of the rows by the weights: a tensor core's tall side, of 64
    values on Hopper, is then that of the weights.
    """

    outputs: int
    inputs: int
    warps: int
    stages: int
    swapped: bool
    parts: int = 1

    def __str__(self) -> str:
        return " ".join(str(int(value)) for value in attrs.astuple(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The tiles of a text as `str` makes it."""
        outputs, inputs, warps, stages, swapped, parts = map(int, text.split())
        return cls(outputs, inputs, warps, stages, bool(swapped), parts)


def multiply(x: torch.Tensor, weight: torch.Tensor, tiles: Tiles, out: torch.Tensor) -> None:
    """Multiply `x` [M, K] by `weight` [N, K], in parts → `out` float32 [S, M, N]."""
    _launch(x, weight, None, tiles, out, "")


def multiply_activate(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tiles: Tiles, out: torch.Tensor, *, gated: bool
) -> None:
    """Write the activation of `x` [M, K] times `weight` [F, K], where gated [2 F, K] (gates first) → `out` [M, F]."""
    _launch(x, weight, bias, tiles, out, "gate" if gated else "gelu")


def _launch(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tiles: Tiles, out: torch.Tensor, activation: str
) -> None:
    rows, inputs = x.shape
    outputs = out.shape[-1]
    steps = triton.cdiv(inputs, tiles.inputs)
    assert rows in (16, 32, 64), "rows as a product of matrices takes them"
    assert tiles.parts == 1 or (not activation and len(out) == tiles.parts), "an activation takes the whole sum"
    _multiply[(triton.cdiv(outputs, tiles.outputs), tiles.parts)](
        x=x,
        weight=weight,
        bias=weight if bias is None else bias,
        out=out,
        inputs=inputs,
        outputs=outputs,
        each=triton.cdiv(steps, tiles.parts),
        ROWS=rows,
        OUTPUTS=tiles.outputs,
        INPUTS=tiles.inputs,
        EVEN=inputs % tiles.inputs == 0 and outputs % tiles.outputs == 0,
        SWAPPED=tiles.swapped,
        BIAS=bias is not None,
        ACTIVATION=activation,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


@triton.jit(do_not_specialize=["each"])  # type: ignore[untyped-decorator]
def _multiply(  # noqa: C901, PLR0912 - its branches are decided when it is compiled
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    inputs: tl.tensor,
    outputs: tl.tensor,
    each: int,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    EVEN: tl.constexpr,
    SWAPPED: tl.constexpr,
    BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
) -> None:
    tile, part = tl.program_id(0), tl.program_id(1)
    rows, n, k = tl.arange(0, ROWS), tl.arange(0, OUTPUTS), tl.arange(0, INPUTS)
    first = tile * OUTPUTS
    begin = part * each * INPUTS
    count = tl.minimum(each, tl.cdiv(inputs - begin, INPUTS))
    weights = weight + first.to(tl.int64) * inputs + begin + n[:, None] * inputs + k[None, :]
    values = x + begin + rows[:, None] * inputs + k[None, :]
    there = (first + n < outputs)[:, None]
    shape: tl.constexpr = (OUTPUTS, ROWS) if SWAPPED else (ROWS, OUTPUTS)
    total = tl.zeros(shape, tl.float32)
    second = tl.zeros(shape, tl.float32)
    beyond = outputs.to(tl.int64) * inputs  # from a gate's weights to those of what it lets through
    for step in range(count):
        if EVEN:
            row = tl.load(values)
            w = tl.load(weights, eviction_policy="evict_first")
        else:
            left = (begin + step * INPUTS + k < inputs)[None, :]
            row = tl.load(values, mask=left, other=0.0)
            w = tl.load(weights, mask=there & left, other=0.0)
        if SWAPPED:
            total = tl.dot(w, tl.trans(row), total, input_precision="ieee")
        else:
            total = tl.dot(row, tl.trans(w), total, input_precision="ieee")
        if ACTIVATION == "gate":
            if EVEN:
                w = tl.load(weights + beyond, eviction_policy="evict_first")
            else:
                w = tl.load(weights + beyond, mask=there & left, other=0.0)
            if SWAPPED:
                second = tl.dot(w, tl.trans(row), second, input_precision="ieee")
            else:
                second = tl.dot(row, tl.trans(w), second, input_precision="ieee")
        values += INPUTS
        weights += INPUTS
    if SWAPPED:
        total = tl.trans(total)
        second = tl.trans(second)
    inside = first + n < outputs
    kind = out.dtype.element_ty
    if BIAS:
        total += tl.load(bias + first + n, mask=inside, other=0.0).to(tl.float32)[None, :]
        if ACTIVATION == "gate":
            second += tl.load(bias + outputs + first + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "gelu":
        total = gelu(total.to(kind).to(tl.float32))  # rounded where torch rounds
    if ACTIVATION == "gate":
        total = silu(total.to(kind).to(tl.float32)).to(kind).to(tl.float32) * second.to(kind).to(tl.float32)
    at = (part * ROWS + rows).to(tl.int64)[:, None] * outputs + first + n[None, :]
    tl.store(out + at, total.to(kind), mask=inside[None, :])
