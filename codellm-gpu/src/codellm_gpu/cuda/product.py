"""A projection of a step's rows, layer for layer, in the way that was chosen for it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import attrs
import torch
from torch import nn

from codellm.torch.linear import Linear
from codellm_gpu.cuda.activation import activate
from codellm_gpu.cuda.skinny import Tiles, multiply, multiply_activate
from codellm_gpu.cuda.sums import Sums
from codellm_gpu.cuda.weight_only import WeightOnlyLinear


@attrs.frozen(eq=False)
class Product:
    """Projections of the same shape, one a layer, for `rows` rows; `activation` is "", "gelu" or "gate"."""

    layers: Seq[nn.Module]
    rows: int
    activation: str = ""
    whole: bool = False
    """Whether the inputs stay in one part, as where the output is what is wanted."""
    tiles: Tiles | None = None
    """None where a projection computes by itself: torch's own product, or that of quantized weights."""

    @property
    def padded(self) -> int:
        """Rows as a product of matrices takes them."""
        return max(16, self.rows)

    @property
    def plain(self) -> bool:
        """Whether the weights are a matrix, as tiles take it."""
        return all(isinstance(layer, Linear) for layer in self.layers)

    @property
    def weight(self) -> torch.Tensor:
        """The weights of the first layer, where they are plain."""
        weight = self.layers[0].weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def sums(self, number: int, x: torch.Tensor) -> Sums:
        """Multiply the first rows of `x` [M, in] by the weights of the layer `number`."""
        layer: Any = self.layers[number]
        if self.tiles is None:
            rows = x[: self.rows]
            quantized = isinstance(layer, WeightOnlyLinear) and layer.takes(rows)
            return Sums(layer.parts(rows), layer.bias) if quantized else Sums(layer(rows)[None])
        parts = x.new_empty(self.tiles.parts, self.padded, layer.out_features, dtype=torch.float32)
        multiply(x[: self.padded], layer.weight, self.tiles, parts)
        return Sums(parts, layer.bias)

    def activated(self, number: int, x: torch.Tensor, out: torch.Tensor) -> None:
        """Write the activation of the product to the first rows of `out` [M, F]."""
        layer: Any = self.layers[number]
        gated = self.activation == "gate"
        if self.tiles is None:
            activate(self.sums(number, x), out, self.rows, gated=gated)
        else:
            rows = slice(self.padded)
            multiply_activate(x[rows], layer.weight, layer.bias, self.tiles, out[rows], gated=gated)

    def write(self, number: int, x: torch.Tensor, out: torch.Tensor) -> None:
        """Write the product itself, without a bias, to the first rows of `out`, float32 [M, out]."""
        layer: Any = self.layers[number]
        if self.tiles is None:
            out[: self.rows].copy_(layer(x[: self.rows]))
        else:
            multiply(x[: self.padded], layer.weight, self.tiles, out[None, : self.padded])
