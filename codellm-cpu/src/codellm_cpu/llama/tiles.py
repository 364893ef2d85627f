"""Whether the installed llama.cpp computes with the matrix tiles (AMX) of this processor, or dies of them.

Compiled by gcc 12 or older, it loads an empty configuration of the tiles and ends the process at the first use of
them: that compiler's `_tile_loadconfig` reads 8 of the 64 bytes, and the stores to the rest are dropped as dead
(ggml-org/llama.cpp#26954). So a build that uses AMX multiplies two matrices in a process of its own first
(tiles_child.py). The verdict is kept in codellm's cache.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codellm.system import machine
from codellm.system.cache import Memo

FLAGS = "-fno-dse -fno-tree-dse -U__AVX512FP16__"
"""With the first two gcc 12 stores the whole configuration. The last has nothing to do with the tiles, but with the
processors that have them: ggml's loops in AVX512-FP16 take 128 numbers at a time and leave heads of 64 to a loop of
single ones (simd-mappings.h, GGML_F16_STEP), which halves the speed of a batch."""

CHILD = "codellm_cpu.llama.tiles_child"
"""The module that multiplies."""
SECONDS = 60.0
"""That it may take; it takes a third of one."""


def multiply(child: str = CHILD, seconds: float = SECONDS) -> bool:
    """Whether a product in tiles comes out right, tried now."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", child],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@functools.cache
def usable(lib: Any, multiplies: Callable[[], bool] = multiply) -> bool:
    """Whether weights may be laid out for the tiles by `lib`, the module of llama.cpp; True where it uses no tiles.

    By the verdict that is kept, else by what `multiplies` says now.
    """
    if b"AMX_INT8 = 1" not in lib.llama_print_system_info():
        return True
    verdicts, key = Memo("tiles.json", most=100), _key(Path(lib.__file__).parent)
    verdict = verdicts.read().get(key)
    if verdict is None:
        verdict = "sound" if multiplies() else "broken"
        verdicts.keep({key: verdict})
    return verdict == "sound"


def _key(folder: Path) -> str:
    """The build, by what is compiled of it, and the processor."""
    built = max((file.stat().st_mtime_ns for file in folder.glob("lib/*")), default=0)
    return f"{folder} | {built} | {machine.cpu_name()} | {' '.join(machine.cpu_features())}"
