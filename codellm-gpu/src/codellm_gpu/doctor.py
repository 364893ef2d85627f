"""What of this installation decides how fast `torch-cuda` is."""

from __future__ import annotations

import importlib.util

from codellm.errors import MachineError
from codellm.finding import Finding
from codellm.system.gpu import gpus

TOPIC = "step kernel"
LEAST = (8, 0)
"""The compute capability that it needs."""
REMEDY = 'pip install "cuda-core[cu13]"'


def examine() -> Finding:
    """Whether a step of one sequence can be one kernel here: without it `torch-cuda` replays a graph of many."""
    try:
        found = gpus()
    except MachineError as error:
        return Finding(topic=TOPIC, value=f"not made: {error}")
    if not found:
        return Finding(topic=TOPIC, value="not made: no NVIDIA GPU is found")
    capability = tuple(map(int, found[0].compute_capability.split(".")))
    if capability < LEAST:
        return Finding(topic=TOPIC, value=f"not made: it needs compute capability 8.0, and {found[0].name} has less")
    lacking = missing()
    if lacking:
        return Finding(topic=TOPIC, value=f"not made: {lacking}; steps are captured graphs", ok=False, remedy=REMEDY)
    return Finding(topic=TOPIC, value=f"compiled for {found[0].name} when a model is loaded")


def missing() -> str:
    """What of cuda-core and NVRTC is not installed, in words; nothing where both are."""
    if any(importlib.util.find_spec(name) is None for name in ("cuda", "cuda.core", "cuda.bindings")):
        return "cuda-core is not installed"
    from cuda.bindings import nvrtc

    try:
        nvrtc.nvrtcVersion()
    except Exception as error:  # its library is loaded now; each version of the bindings fails in its own way
        return f"NVRTC is not found ({str(error).splitlines()[0][:100]})"
    return ""
