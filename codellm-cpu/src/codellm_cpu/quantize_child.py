"""llama.cpp's quantizer in a process of its own.

`python -m codellm_cpu.quantize_child SOURCE DESTINATION TYPE THREADS`

One C call does everything: it cannot be interrupted, and on some files it ends the process. So the caller (quantize.py)
runs it here, reads llama.cpp's log from stdout, and kills the process when it has had enough. Exit code 0: written.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

BUFFER = 512 << 20
"""Bytes of rows that llama.cpp may hold at once; its own default is 8 GiB."""


def main() -> int:
    """Quantize as the command line says."""
    source, destination, file_type, threads = sys.argv[1:]
    threading.Thread(target=end_with_parent, args=(destination,), daemon=True).start()

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
    code: int = lib.llama_model_quantize(os.fsencode(source), os.fsencode(destination), params)
    return 1 if code else 0


def end_with_parent(destination: str) -> None:
    """The caller holds the other end of stdin: its end of file is the caller's end, however that came about."""
    sys.stdin.read()
    with contextlib.suppress(OSError):
        Path(destination).unlink()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
