"""The weight-only schemes of `torch-cuda`: two that it applies to a projection as it is read, two that it is stored in.

They are known without torch.
"""

from __future__ import annotations

from codellm.scheme import Scheme
from codellm.torch import gptq

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
        bound=0.33,
        description="4 bits, groups of 128, scales of least squared error",
    ),
    Scheme(
        name="awq-int4",
        bits=4 + (16 + 4) / 128,  # and a zero point
        applies="load",
        description="4 bits of checkpoints of AWQ, groups of 128",
    ),
    *(scheme for scheme in gptq.SCHEMES if scheme.name == "gptq-int4"),
)
"""The bounds are derived in docs/quantization.md."""
