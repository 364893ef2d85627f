"""The weight-only schemes of `torch-cuda`, which it applies to each projection as it is read."""

from __future__ import annotations

from codellm.scheme import Scheme

SCHEMES = (
    Scheme(
        name="int8",
        bits=8,
        applies="load",
        takes=frozenset({"safetensors"}),
        bound=0.01,
        description="8 bits, a scale for each output, rounded to nearest",
    ),
    Scheme(
        name="int4",
        bits=4 + 16 / 128,  # a scale of 16 bits for each group
        applies="load",
        takes=frozenset({"safetensors"}),
        bound=0.21,
        description="4 bits, groups of 128, scales of least squared error",
    ),
)
"""The bounds are derived in docs/quantization.md."""
