"""A projection's output before it is put together: the sums over parts of its inputs, and the bias.

The kernel that needs the values adds the parts up, in their order, so that a product may be cut along its inputs
without a launch of its own for the sum, and comes out the same each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import triton
import triton.language as tl

if TYPE_CHECKING:
    import torch


@attrs.frozen(eq=False)
class Sums:
    """`parts` [S, M, N] in float32 or the model's type, and `bias` [N] or None: the output is their sum [M, N]."""

    parts: torch.Tensor
    bias: torch.Tensor | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What a kernel that calls `added` takes; a pointer that is not read is that of the parts."""
        return {
            "parts": self.parts,
            "stride": self.parts.stride(0),
            "bias": self.parts if self.bias is None else self.bias,
            "PARTS": len(self.parts),
            "BIAS": self.bias is not None,
        }


@triton.jit  # type: ignore[untyped-decorator]
def added(
    parts: tl.tensor,
    stride: int,
    bias: tl.tensor,
    row: tl.tensor,
    columns: tl.tensor,
    width: int,
    mask: tl.tensor,
    PARTS: tl.constexpr,
    BIAS: tl.constexpr,
) -> tl.tensor:
    """The values of a row at `columns`, in float32."""
    at = row * width + columns
    total = tl.load(parts + at, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * stride + at, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        total += tl.load(bias + columns, mask=mask, other=0.0).to(tl.float32)
    return total
