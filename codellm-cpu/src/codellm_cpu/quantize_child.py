"""llama.cpp's quantizer in a process of its own.

`python -m codellm_cpu.quantize_child SOURCE DESTINATION TYPE THREADS MATRIX`

One C call does everything: it cannot be interrupted, and on some files it ends the process. So the caller
(quantizer.py) runs it here, reads llama.cpp's log from stdout, and kills the process when it has had enough. MATRIX is
a file of imatrix.py, or empty. Without DESTINATION nothing is written, and the log tells the sizes; a matrix is
then only `planned`. Exit code 0: done.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codellm_cpu.child import end_with_parent

if TYPE_CHECKING:
    import numpy.typing as npt

BUFFER = 512 << 20
"""Bytes of rows that llama.cpp may hold at once; its own default is 8 GiB."""


def main() -> int:
    """Quantize, or plan to, as the command line says → exit code."""
    source, destination, file_type, threads, matrix = sys.argv[1:]
    end_with_parent(Path(destination) if destination else None)

    import llama_cpp.llama_cpp as lib

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def log(_level: int, text: bytes, _data: object) -> None:
        os.write(1, text)

    lib.llama_log_set(log, None)
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.ftype = int(file_type)
    params.nthread = int(threads)
    params.max_buf_size = BUFFER
    params.dry_run = not destination
    if matrix:
        means = _read(Path(matrix)) if destination else {}
        entries = _entries(lib, means)
        params.imatrix = ctypes.cast(entries, ctypes.POINTER(lib.llama_model_imatrix_data))
    code: int = lib.llama_model_quantize(os.fsencode(source), os.fsencode(destination), params)
    return 1 if code else 0


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}


def _entries(lib: Any, means: dict[str, npt.NDArray[Any]]) -> Any:
    """The matrix as llama.cpp takes it: an array that an entry without a name ends; it points into `means`."""
    entries = (lib.llama_model_imatrix_data * (len(means) + 1))()
    for entry, (name, mean) in zip(entries, means.items(), strict=False):
        entry.name = name.encode()
        entry.data = mean.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = len(mean)
    return entries


if __name__ == "__main__":
    sys.exit(main())
