"""Large pages for memory that every step reads whole."""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEAST = 4 << 20
"""Bytes below which a tensor has no room for a page of 2 MB, or hardly any."""


def use_large_pages(tensor: torch.Tensor) -> None:
    """Ask Linux to back `tensor`, before anything is written to it, with pages of 2 MB where it can (madvise(2)).

    Decoding reads all weights once a token. In pages of 4 KB the processor spends a good part of that time on finding
    each next page, above all in a virtual machine; torch's allocator asks for larger ones only if an environment
    variable is set before it starts. Does nothing on another device or system, or where the system refuses.
    """
    size = tensor.untyped_storage().nbytes()
    if tensor.device.type != "cpu" or size < LEAST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    address = tensor.untyped_storage().data_ptr()
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise(start, end - start, mmap.MADV_HUGEPAGE)
