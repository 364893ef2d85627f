"""The projection of a decoder, computed in the way that suits its rows, its type and the processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

UPCAST_ROWS = 8
"""Rows of x from which `upcast_linear` is faster: on a Zen 3, 8 rows by 3072 x 12288 took it 24 to 27 ms, torch 30."""
BLOCK = 1 << 20
"""Weights that are upcast at a time: 4 MB, which the processor's caches hold until they were multiplied."""
LANE = 4096
"""Terms that Inductor adds up plainly: a longer sum is cascaded for precision, at half the speed."""


def has_matmul(dtype: torch.dtype) -> bool:
    """Whether torch has a product of matrices in `dtype`, of 2 bytes, for this processor: what oneDNN tells of it.

    Without one torch adds up row by row: on x86 that is without AVX-512, as in most laptops. Of AVX-512 without an
    instruction for bfloat16 oneDNN says that it has, but only emulates it: on a Cascade Lake 512 rows by 3072 x 12288
    took 769 ms, `upcast_linear` 208. A torch that was built without oneDNN is left to itself.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return True
    if dtype == torch.bfloat16 and emulates(torch.cpu.get_capabilities()):
        return False
    ask = "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    return bool(getattr(torch.ops.mkldnn, ask)())


def emulates(processor: Mapping[str, object]) -> bool:
    """Whether oneDNN's bfloat16 is made of float32's instructions on `processor`, by torch's names of what it has."""
    return bool(processor.get("avx512_bw")) and not any(map(processor.get, ("avx512_bf16", "amx_bf16")))


UPCAST_DTYPES = tuple(dtype for dtype in (torch.bfloat16, torch.float16) if not has_matmul(dtype))
"""The types without a product of their own here: asked once, since a compiled step cannot ask."""


class Linear(nn.Linear):
    """Projection: x times the weights, plus the bias. Of `upcast`, the processor has no product of matrices.

    Half-precision weights on a CPU have ways of their own: one row, compiled, is spelled out (`gemv`), and many rows
    are multiplied in float32 (`upcast_linear`) where the processor has no product of matrices in that type.
    """

    upcast: ClassVar[tuple[torch.dtype, ...]] = UPCAST_DTYPES

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project `x` [..., in] → [..., out]."""
        if x.device.type == "cpu" and self.weight.itemsize == 2:
            rows = x.numel() // self.in_features
            if rows == 1 and torch.compiler.is_dynamo_compiling():
                return gemv(x, self.weight, self.bias)
            if rows >= UPCAST_ROWS and self.weight.dtype in self.upcast:
                product: torch.Tensor = upcast_linear(x, self.weight, self.bias)
                return product
        return super().forward(x)


@torch.library.custom_op("codellm::upcast_linear", mutates_args=())
def upcast_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Multiply `x` [..., in] by `weight` [out, in] in float32, plus `bias` [out] → [..., out] of x's type.

    Traced or compiled it stays one operation.
    """
    return multiply_blocks(x, weight, bias, BLOCK)


def multiply_blocks(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, values: int) -> torch.Tensor:
    """Do what `upcast_linear` does, of so many `values` of the weights at a time: no copy of them all is in memory."""
    rows = x.reshape(-1, x.shape[-1]).float()
    y = x.new_empty(len(rows), len(weight))
    size = max(1, values // weight.shape[1])
    block = torch.empty(size, weight.shape[1])
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        upcast = block[: len(weight[part])].copy_(weight[part])
        product = rows @ upcast.T
        y[:, part] = product if bias is None else product.add_(bias[part])
    return y.view(*x.shape[:-1], len(weight))


@upcast_linear.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    del bias  # it changes no shape
    return x.new_empty(*x.shape[:-1], len(weight))


def gemv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Multiply `x` [..., in] by `weight` [out, in] as a product and a sum, in float32 → [..., out].

    Inductor makes a loop of it that reads the weights at most of the memory's bandwidth, where the library's product of
    matrices reaches half of it for one row. `x` is written out before: else the loop would compute it for each row.
    """
    x = torch._inductor.inductor_prims.force_stride_order(x, x.stride())
    size = x.shape[-1]
    lanes = next(count for count in range(-(-size // LANE), size + 1) if size % count == 0)
    row = x.float().view(*x.shape[:-1], 1, lanes, size // lanes)
    product = (row * weight.float().view(len(weight), lanes, size // lanes)).sum(dim=-1).sum(dim=-1)
    return (product if bias is None else product + bias).to(x.dtype)
