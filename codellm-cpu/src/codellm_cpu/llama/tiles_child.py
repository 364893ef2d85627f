"""A product of two matrices in every layout that llama.cpp's CPU backend has of its own, in a process that may die.

`python -m codellm_cpu.llama.tiles_child`

Exit code 0: each is what numpy computes. llama.cpp exports its layouts as `ggml_backend_dev_get_extra_bufts`
(ggml-backend.h). The numbers are whole and the products exact, so that any difference is a fault.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from codellm_cpu.llama.library import library

F32, Q4_0 = 0, 2  # ggml.h, enum ggml_type
_LAYOUTS = b"ggml_backend_dev_get_extra_bufts"

COLUMNS, ROWS, TOKENS = 256, 64, 32
"""Enough of each for whole tiles: one token alone is multiplied without them."""


class InitParams(ctypes.Structure):
    """Memory that ggml_init takes: ggml.h, struct ggml_init_params."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The functions of ggml that a product takes; every pointer is an int. llama.cpp's library exports them all."""

    def __init__(self) -> None:
        self._library: Any = library()._lib
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.init = self._function("ggml_init", pointer, InitParams)
        self.tensor = self._function(
            "ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
        )
        self.product = self._function("ggml_mul_mat", pointer, pointer, pointer, pointer)
        self.graph = self._function("ggml_new_graph", pointer, pointer)
        self.expand = self._function("ggml_build_forward_expand", None, pointer, pointer)
        self.allocate = self._function("ggml_backend_alloc_ctx_tensors_from_buft", pointer, pointer, pointer)
        self.set = self._function("ggml_backend_tensor_set", None, pointer, pointer, size, size)
        self.get = self._function("ggml_backend_tensor_get", None, pointer, pointer, size, size)
        self.compute = self._function("ggml_backend_graph_compute", ctypes.c_int, pointer, pointer)
        self.by_name = self._function("ggml_backend_dev_by_name", pointer, ctypes.c_char_p)
        self.open = self._function("ggml_backend_dev_init", pointer, pointer, ctypes.c_char_p)
        self.plain = self._function("ggml_backend_dev_buffer_type", pointer, pointer)
        self.registry = self._function("ggml_backend_dev_backend_reg", pointer, pointer)
        self.address = self._function("ggml_backend_reg_get_proc_address", pointer, pointer, ctypes.c_char_p)

    def _function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function: Callable[..., Any] = ctypes.CFUNCTYPE(result, *arguments)((name, self._library))
        return function

    def layouts(self, device: int) -> Iterator[int]:
        """The buffer types in which the device keeps weights otherwise than a file does."""
        address = self.address(self.registry(device), _LAYOUTS)
        if address:
            found = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
            for index in range(64):
                if not found or not found[index]:
                    return
                yield found[index]


def main() -> int:
    """Multiply in each layout → exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ggml = Ggml()
    device = ggml.by_name(b"CPU")
    return 0 if all(sound(ggml, device, layout) for layout in ggml.layouts(device)) else 1


def sound(ggml: Ggml, device: int, layout: int) -> bool:
    """Whether ggml multiplies weights in `layout` as numpy does."""
    levels, inputs = operands()
    expected = inputs @ (levels.reshape(ROWS, COLUMNS).astype(np.float32) - 8).T
    found = multiplied(ggml, device, layout, levels, inputs)
    return found is not None and np.array_equal(found, expected)


def operands() -> tuple[Any, Any]:
    """Weights as levels [ROWS, COLUMNS / 32, 32], and inputs [TOKENS, COLUMNS], whose product is exact."""
    dice = np.random.default_rng(0)
    levels = dice.integers(0, 16, (ROWS, COLUMNS // 32, 32), np.uint8)
    inputs = dice.integers(-127, 128, (TOKENS, COLUMNS)).astype(np.float32)
    inputs[:, ::32] = 127  # ggml rounds inputs to 127 steps of the greatest of 32: all of them stay as they are
    return levels, inputs


def multiplied(ggml: Ggml, device: int, layout: int, levels: Any, inputs: Any) -> Any:
    """The product [TOKENS, ROWS] that ggml computes of weights in `layout`; None where it refuses."""
    held, computed = (ggml.init(InitParams(1 << 20, None, True)) for _ in range(2))
    weights = ggml.tensor(held, Q4_0, COLUMNS, ROWS)
    columns = ggml.tensor(computed, F32, COLUMNS, TOKENS)
    product = ggml.product(computed, weights, columns)
    graph = ggml.graph(computed)
    ggml.expand(graph, product)
    if not ggml.allocate(held, layout) or not ggml.allocate(computed, ggml.plain(device)):
        return None
    blocks = q4_0(levels)
    ggml.set(weights, blocks.ctypes.data, 0, blocks.nbytes)
    ggml.set(columns, inputs.ctypes.data, 0, inputs.nbytes)
    if ggml.compute(ggml.open(device, None), graph):
        return None
    found = np.zeros((TOKENS, ROWS), np.float32)
    ggml.get(product, found.ctypes.data, 0, found.nbytes)
    return found


def q4_0(levels: Any) -> Any:
    """Blocks of levels (0 … 15) [..., 32] at the scale 1 → bytes [..., 18] (ggml-common.h, block_q4_0)."""
    scale = np.broadcast_to(np.frombuffer(np.float16(1).tobytes(), np.uint8), (*levels.shape[:-1], 2))
    return np.ascontiguousarray(np.concatenate([scale, levels[..., :16] | levels[..., 16:] << 4], axis=-1))


if __name__ == "__main__":
    sys.exit(main())
