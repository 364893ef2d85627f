"""What the extra brings, and what both of its backends say of themselves."""

from __future__ import annotations

REMEDY = 'pip install "codellm-cpu[torch]" --extra-index-url https://download.pytorch.org/whl/cpu'
"""The index has torch without CUDA: on Linux pip's own brings gigabytes of it."""


def bandwidth(device: str) -> float | None:
    """What all default threads together read from main memory, measured once per process (about 0.2 s)."""
    from codellm.system.machine import default_threads, read_bandwidth

    return read_bandwidth(default_threads()) if device in ("auto", "cpu") else None
