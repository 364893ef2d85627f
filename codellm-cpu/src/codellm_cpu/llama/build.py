"""The installed build of llama.cpp: whether it was compiled for this processor."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection
from importlib import metadata

from codellm.finding import Finding
from codellm.system import machine
from codellm_cpu.llama import tiles

RECOMPILE = (
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python "
    "--config-settings=cmake.define.LLAVA_BUILD=OFF llama-cpp-python"
)
"""Compiles it again, for the processor at hand."""

KEEP_TILES = f'CXXFLAGS="{tiles.FLAGS}" {RECOMPILE}'
"""The same, with its matrix tiles in working order: see tiles.py."""

_TOLD = {
    "AVX512": "avx512f",
    "MATMUL_INT8": "i8mm",
    **{name.upper(): name for name in ("sse3", "ssse3", "avx", "avx2", "fma", "f16c", "avx_vnni")},
    **{name.upper(): name for name in ("avx512_vnni", "avx512_bf16", "amx_int8", "neon", "dotprod", "sve")},
}
"""The instruction sets that llama.cpp tells of, by its names (ggml-cpu.cpp, ggml_backend_cpu_get_features)."""

ASK = "import llama_cpp.llama_cpp as lib; print(lib.llama_print_system_info().decode())"
"""The program that asks a build what it was compiled for."""
SECONDS = 60.0
"""That it may take; it takes a fifth of one."""


def examine(program: str = ASK, seconds: float = SECONDS) -> Finding:
    """Whether llama.cpp is installed, runs here, and uses what the processor has."""
    try:
        version = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return _finding("is not installed", "pip install llama-cpp-python")
    try:
        # in a process of its own: code for another processor dies of the first instruction that this one lacks
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _finding(f"{version} did not answer within {seconds:g} s", RECOMPILE)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return _finding(f"{version} cannot be loaded ({said[-1]})", RECOMPILE)
    return judge(version, parse_features(done.stdout), machine.cpu_features())


def judge(
    version: str, built: Collection[str], present: Collection[str], multiplies: Callable[[], bool] = tiles.multiply
) -> Finding:
    """The finding of `compare`, and of a build that uses matrix tiles whether it `multiplies` in them."""
    found = compare(version, built, present)
    if found.ok and "amx_int8" in built and not multiplies():  # anew: the verdict that is kept may be of another day
        return _finding(f"{version} dies of the matrix tiles it was compiled for, and goes without them", KEEP_TILES)
    return found


def parse_features(info: str) -> frozenset[str]:
    """Instruction sets, by our names, in what `llama_print_system_info` says: `CPU : SSE3 = 1 | AVX = 1 | …`."""
    return frozenset(_TOLD[name] for name in re.findall(r"(\w+) = 1\b", info) if name in _TOLD)


def compare(version: str, built: Collection[str], present: Collection[str]) -> Finding:
    """The finding on a build that uses the instruction sets `built`, on a processor that has those `present`."""
    beyond = sorted(name for name in built if name not in present) if present else []
    if beyond:
        return _finding(f"{version} was compiled for {' '.join(beyond)}, which this processor lacks", RECOMPILE)
    missing = [name for name in present if name in _TOLD.values() and name not in built]
    if missing:
        return _finding(f"{version} was compiled without {' '.join(missing)}, which this processor has", RECOMPILE)
    used = " ".join(name for name in present if name in built)
    return Finding(topic="llama-cpp-python", value=f"{version} uses {used or 'no special instructions'}")


def _finding(value: str, remedy: str) -> Finding:
    return Finding(topic="llama-cpp-python", value=value, ok=False, remedy=remedy)
