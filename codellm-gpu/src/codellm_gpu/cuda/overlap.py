"""A kernel that is on its multiprocessors before the one ahead is done: programmatic dependent launch, from Hopper on.

It reads of memory what no kernel of a step writes, such as weights, and waits before it reads or writes anything else.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LINE = 128
"""Bytes that memory gives at once."""


@functools.cache
def overlaps(device: torch.device) -> bool:
    """Whether kernels on `device` can be launched before the one ahead is done."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def launch(device: torch.device) -> dict[str, Any]:
    """What every kernel of a step is launched with."""
    options = {"OVERLAP": True, "launch_pdl": True} if overlaps(device) else {"OVERLAP": False}
    return options | {"enable_fp_fusion": True}  # as it was by default; Triton 3.9 wants it said


@triton.jit  # type: ignore[untyped-decorator]
def enter(OVERLAP: tl.constexpr) -> None:
    """Let the next kernel come, and wait for the last one."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit  # type: ignore[untyped-decorator]
def prefetch(pointers: tl.tensor) -> None:
    """Have the lines of memory at `pointers` brought to the cache that all multiprocessors share."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [pointers.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
