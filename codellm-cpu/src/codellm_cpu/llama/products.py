"""The matrix products of a model while llama.cpp computes them: which weight, and what it is multiplied with.

llama.cpp shows each operation to `llama_context_params.cb_eval` as a bare pointer to a `ggml_tensor`. llama-cpp-python
does not know that structure, so its fields stand here up to the name (ggml.h, struct ggml_tensor), and what is read
through them is held against ggml's own functions: another layout is an error, not a wrong number.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from codellm.errors import BackendError

if TYPE_CHECKING:
    import numpy.typing as npt

_FLOAT32 = 0  # ggml.h, enum ggml_type


class Tensor(ctypes.Structure):
    """A tensor as llama.cpp lays it out in memory, up to its name."""

    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]


class Products:
    """Reads products off the pointers that llama.cpp gives, by the `layout` of its tensors."""

    def __init__(self, lib: Any, layout: type[ctypes.Structure] = Tensor) -> None:
        self._layout: Any = layout
        handle = lib._lib  # ggml's functions are found through llama.cpp's library, which is linked with them
        self._name = _function(handle.ggml_get_name, ctypes.c_char_p)
        self._operation = _function(handle.ggml_op_desc, ctypes.c_char_p)
        self._count = _function(handle.ggml_nelements, ctypes.c_int64)
        self._size = _function(handle.ggml_nbytes, ctypes.c_size_t)
        self._data = _function(handle.ggml_get_data, ctypes.c_void_p)

    def weight(self, pointer: int) -> str | None:
        """The name of the matrix that an operation multiplies with; None for any other operation.

        Raises:
            BackendError: ggml's structures are not laid out as they are read here.
        """
        if self._operation(pointer) != b"MUL_MAT":
            return None
        name: bytes = self._tensor(self._tensor(pointer).src[0]).name
        return name.decode("utf-8", "replace")

    def inputs(self, pointer: int) -> npt.NDArray[np.float32]:
        """What a product multiplies its matrix with: [rows, columns], valid until the computation goes on.

        Raises:
            BackendError: see `weight`; or the rows are not float32, or not one after the other.
        """
        tensor = self._tensor(self._tensor(pointer).src[1])
        columns, rows = tensor.ne[0], math.prod(tensor.ne[1:])
        if tensor.type != _FLOAT32 or self._size(ctypes.addressof(tensor)) != rows * columns * 4:
            raise BackendError(f"the inputs of {tensor.name.decode('utf-8', 'replace')!r} are no rows of float32")
        return np.ctypeslib.as_array(ctypes.cast(tensor.data, ctypes.POINTER(ctypes.c_float)), (rows, columns))

    def _tensor(self, pointer: int | None) -> Any:
        tensor = self._layout.from_address(pointer) if pointer else None
        if tensor is None or (tensor.name, math.prod(tensor.ne), tensor.data) != (
            self._name(pointer),
            self._count(pointer),
            self._data(pointer),
        ):
            raise BackendError(
                "this llama.cpp lays its tensors out differently, so no importance matrix can be computed; "
                "install the llama-cpp-python that codellm-cpu asks for"
            )
        return tensor


def _function(function: Any, result: Any) -> Any:
    function.argtypes, function.restype = [ctypes.c_void_p], result
    return function
