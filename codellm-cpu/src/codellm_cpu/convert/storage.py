"""Weights from one stored type to another, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from codellm.errors import ModelFileError

SLAB = 1 << 20
"""Values converted at once: what a conversion needs beside the tensor itself is a few times 4 MB."""

SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes a value."""

F16_MAX = 65504.0


def slabs(values: npt.NDArray[np.generic], stored: str, target: str, name: str) -> Iterator[npt.NDArray[np.generic]]:
    """Convert `values` of type `stored` (bfloat16 as uint16) → flat pieces of type `target`, in order.

    Rounds to nearest, ties to even.

    Raises:
        ModelFileError: a value is NaN or infinite, or beyond float16's range where that is the target.
    """
    flat = values.reshape(-1)
    for begin in range(0, flat.size, SLAB):
        part = flat[begin : begin + SLAB]
        if not finite(part, stored):
            raise ModelFileError(f"tensor {name!r} holds NaN or infinity; the checkpoint is damaged")
        if stored == target:
            yield part
        elif target == "float32":
            yield to_float32(part, stored)
        elif target == "float16":
            yield to_float16(to_float32(part, stored), name)
        else:
            yield to_bfloat16(to_float32(part, stored))


def finite(part: npt.NDArray[np.generic], stored: str) -> bool:
    """Whether all values of a type, bfloat16 as bits, are neither NaN nor infinite."""
    if stored == "bfloat16":  # an exponent of all ones is infinity or NaN
        return bool((part.astype(np.uint16, copy=False) & np.uint16(0x7FFF)).max(initial=0) < 0x7F80)
    return bool(np.isfinite(part).all())


def to_float32(part: npt.NDArray[np.generic], stored: str) -> npt.NDArray[np.float32]:
    """Convert exactly: both half types are subsets of float32."""
    if stored == "bfloat16":
        return (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return part.astype(np.float32, copy=False)


def to_bfloat16(part: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Bit patterns of finite values as bfloat16: float32's upper half, after rounding the lower away."""
    bits = np.ascontiguousarray(part).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def to_float16(part: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float16]:
    """Round float32 values to float16.

    Raises:
        ModelFileError: a value is beyond 65504, which would become infinity.
    """
    largest = float(np.abs(part).max(initial=0.0))
    if largest > F16_MAX:
        raise ModelFileError(f"tensor {name!r} reaches {largest:g}, beyond f16's {F16_MAX:g}; convert to bf16 instead")
    return part.astype(np.float16)
