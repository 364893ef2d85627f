"""llama.cpp in a process of its own: one C call cannot be interrupted, and on some files it ends the process."""

from __future__ import annotations

import contextlib
from pathlib import Path

from codellm.system import child
from codellm.system.child import Child, Ending, end_with_parent

__all__ = ["Child", "Ending", "end_with_parent", "running"]


def running(module: str, *arguments: str | Path | int) -> contextlib.AbstractContextManager[Child]:
    """A child for the time of the block: it ends with the block, however that ends."""
    # without it, an abort starts a debugger
    return child.running(module, *arguments, environment={"GGML_NO_BACKTRACE": "1"})
