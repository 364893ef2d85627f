"""Projections whose weights are 8 or 4 bits: the activations stay as they are, and the products are summed in float32.

N outputs, K inputs, G = 128 inputs that share a scale, M rows of activations. A weight is (code - zero) * scale.
"""

from __future__ import annotations

import abc
from typing import ClassVar, Self

import torch
from torch import nn
from torch.nn import functional

from codellm_gpu.cuda.rounding import GROUP, round_groups, round_rows

BLOCK = 1 << 22
"""Weights that are quantized at a time: beside the model memory holds a few float32 copies of them."""
FLOATS = 1 << 26
"""Weights that are written out as floats at a time, for a product of many rows: 128 MB, most projections of a 7B."""
FEW = 64
"""Rows up to which a GPU multiplies by the codes themselves: more are multiplied faster by floats."""


class WeightOnlyLinear(nn.Module, abc.ABC):
    """Stands where `codellm.torch.linear.Linear` does. `bias` is [N] in the activations' type, or None."""

    bits: ClassVar[int]
    block: ClassVar[int] = BLOCK
    floats: ClassVar[int] = FLOATS
    scales: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("bias", bias)

    @abc.abstractmethod
    def codes(self) -> torch.Tensor:
        """The codes, one a byte: uint8 [N, K]."""

    @abc.abstractmethod
    def parts(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply `x` [M, K] that it `takes` by the codes → float32 [S, M, N]: S parts to add up in their order.

        The bias is not in them.
        """

    def takes(self, x: torch.Tensor) -> bool:
        """Whether `x` [..., K] is multiplied by the codes themselves: a few rows of 2 bytes on a GPU."""
        return x.is_cuda and x.itemsize == 2 and x.numel() <= FEW * self.in_features

    @abc.abstractmethod
    def dequantized(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """The weights of some outputs, [rows, K], rounded to `dtype` once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project `x` [..., K] → [..., N] of x's type."""
        if self.takes(x):
            from codellm_gpu.cuda.weight_only_products import added

            parts = self.parts(x.reshape(-1, self.in_features).contiguous())
            return added(parts, self.bias, x.dtype).view(*x.shape[:-1], self.out_features)
        outputs = [
            functional.linear(x, self.dequantized(rows, x.dtype), None if self.bias is None else self.bias[rows])
            for rows in blocks(self.out_features, self.in_features, self.floats)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class Int8Linear(WeightOnlyLinear):
    """8 bits, a scale an output: `levels` int8 [N, K] from -127 to 127, `scales` float32 [N]. A code is level + 128."""

    bits: ClassVar[int] = 8
    levels: torch.Tensor
    zeros: None = None

    def __init__(self, levels: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(levels.shape[1], levels.shape[0], bias)
        self.register_buffer("levels", levels)
        self.register_buffer("scales", scales)

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Self:
        """Quantize `weight` [N, K] where it lies, some outputs at a time."""
        outputs, columns = weight.shape
        levels = torch.empty_like(weight, dtype=torch.int8)
        scales = weight.new_empty(outputs, dtype=torch.float32)
        for rows in blocks(outputs, columns, cls.block):
            levels[rows], scales[rows] = round_rows(weight[rows].float())
        return cls(levels, scales, bias)

    def codes(self) -> torch.Tensor:
        return self.levels.view(torch.uint8) ^ 128

    def parts(self, x: torch.Tensor) -> torch.Tensor:
        from codellm_gpu.cuda.weight_only_products import int8_parts

        return int8_parts(x, self.levels, self.scales)

    def dequantized(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        if self.levels.is_cuda:
            from codellm_gpu.cuda.weight_only_products import int8_floats

            return int8_floats(self.levels[rows], self.scales[rows], dtype)
        return (self.levels[rows] * self.scales[rows, None]).to(dtype)


class Int4Linear(WeightOnlyLinear):
    """4 bits, a scale for G inputs of an output.

    `packed` is uint8 [N, K / 2]: of a group of G inputs, byte i holds the code of input i in its low half, and that of
    input i + G / 2 in its high half, so that both halves multiply neighbouring activations. `scales` are float16 or
    bfloat16 [N, K / G]; `zeros` uint8 [N, K / G], or None where all are 8. Both lie group by group in memory, so that
    a tile of outputs reads those of a group in one piece.
    """

    bits: ClassVar[int] = 4
    packed: torch.Tensor
    zeros: torch.Tensor | None

    def __init__(
        self, packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, bias: torch.Tensor | None
    ) -> None:
        super().__init__(packed.shape[1] * 2, packed.shape[0], bias)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales.T.contiguous().T)
        self.register_buffer("zeros", None if zeros is None else zeros.T.contiguous().T)

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Self:
        """Quantize `weight` [N, K], whose rows are whole groups, where it lies, some outputs at a time.

        The scales are in the weights' type, or float16 where that is float32.
        """
        outputs, columns = weight.shape
        packed = weight.new_empty(outputs, columns // 2, dtype=torch.uint8)
        stored = weight.dtype if weight.itemsize == 2 else torch.float16
        scales = weight.new_empty(outputs, columns // GROUP, dtype=stored)
        for rows in blocks(outputs, columns, cls.block):
            groups = weight[rows].float().view(-1, columns // GROUP, GROUP)
            codes, scales[rows] = round_groups(groups, stored)
            packed[rows] = packed_codes(codes.flatten(1))
        return cls(packed, scales, None, bias)

    @classmethod
    def of_codes(
        cls, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, bias: torch.Tensor | None
    ) -> Self:
        """Take weights that are quantized already: `codes` uint8 [N, K] from 0 to 15, the rest as the class has it."""
        return cls(packed_codes(codes), scales, zeros, bias)

    def codes(self) -> torch.Tensor:
        return unpacked_codes(self.packed)

    def parts(self, x: torch.Tensor) -> torch.Tensor:
        from codellm_gpu.cuda.weight_only_products import int4_parts

        return int4_parts(x, self.packed, self.scales, self.zeros)

    def dequantized(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        zeros = None if self.zeros is None else self.zeros[rows]
        if self.packed.is_cuda:
            from codellm_gpu.cuda.weight_only_products import int4_floats

            return int4_floats(self.packed[rows], self.scales[rows], zeros, dtype)
        groups = unpacked_codes(self.packed[rows]).view(-1, self.in_features // GROUP, GROUP)
        centred = groups.float() - (8 if zeros is None else zeros[..., None].float())
        return (centred * self.scales[rows, :, None].float()).to(dtype).flatten(1)


def packed_codes(codes: torch.Tensor) -> torch.Tensor:
    """Codes of 4 bits, uint8 [N, K], two a byte as `Int4Linear` has them: [N, K / 2]."""
    low, high = codes.view(len(codes), -1, 2, GROUP // 2).unbind(-2)
    return (low | high << 4).flatten(1)


def unpacked_codes(packed: torch.Tensor) -> torch.Tensor:
    """Undo `packed_codes`: uint8 [N, K / 2] → [N, K]."""
    halves = packed.view(len(packed), -1, GROUP // 2)
    return torch.stack((halves & 15, halves >> 4), dim=-2).flatten(1)


def blocks(rows: int, columns: int, most: int) -> list[slice]:
    """Rows of a matrix in blocks of at most `most` weights, or one row."""
    size = max(1, most // columns)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
