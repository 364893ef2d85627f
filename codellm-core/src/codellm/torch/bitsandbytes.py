"""The schemes of bitsandbytes, which it applies to a weight as it is read. torch is imported when a model is loaded."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from codellm.errors import BackendUnavailableError
from codellm.options import Option, amount, choice, switch
from codellm.scheme import Scheme
from codellm.torch.quantization import Quantization

if TYPE_CHECKING:
    import torch


def _scheme(name: str, bits: float, bound: float, description: str) -> Scheme:
    return Scheme(
        name=name,
        bits=bits,
        applies="load",
        format="safetensors",
        takes=frozenset({"safetensors"}),
        bound=bound,
        description=description,
    )


SCHEMES = (
    _scheme("bnb-int8", 8, 0.01, "LLM.int8() of bitsandbytes"),
    _scheme("bnb-nf4", 4.5, 0.36, "NormalFloat of bitsandbytes, blocks of 64"),
    _scheme("bnb-fp4", 4.5, 0.56, "4-bit floats of bitsandbytes, blocks of 64"),
)
"""LLM.int8() is of Dettmers et al. 2022, NormalFloat of Dettmers et al. 2023. 64 weights of 4 bits share a float32.

The bounds, of checkpoints that are written, are derived in docs/quantization.md.
"""

_FOUR_BITS = ("bnb-nf4", "bnb-fp4")
OPTIONS: dict[str, Option[Any]] = {
    "threshold": amount(
        6.0,
        "an activation's size",
        help="Columns with an activation as large as that are computed in half precision.",
        schemes=("bnb-int8",),
    ),
    "compute_dtype": choice(
        "auto",
        "float16",
        "bfloat16",
        "float32",
        help="What products are computed in; auto is the model's type.",
        schemes=_FOUR_BITS,
    ),
    "double_quant": switch(
        "true", "false", default=False, help="Whether the scales are quantized too.", schemes=_FOUR_BITS
    ),
}
"""The `-o` options of the schemes, while weights are quantized. A checkpoint that is stored so has none."""


@attrs.frozen
class BitsAndBytes(Quantization):
    """A scheme of SCHEMES with its options."""

    scheme: Scheme
    options: Mapping[str, Any]

    def require(self, remedy: str) -> None:
        if not all(map(importlib.util.find_spec, ("bitsandbytes", "accelerate"))):
            raise BackendUnavailableError(f"{self.scheme.name} needs bitsandbytes and accelerate; {remedy}")

    def config(self, dtype: torch.dtype) -> Any:
        """See `Quantization`; what has no option is bitsandbytes' own default."""
        import torch
        import transformers

        quieten()
        if self.scheme.name == "bnb-int8":
            return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=self.options["threshold"])
        compute = self.options["compute_dtype"]
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.scheme.name.removeprefix("bnb-"),
            bnb_4bit_compute_dtype=dtype if compute == "auto" else getattr(torch, compute),
            bnb_4bit_use_double_quant=self.options["double_quant"],
        )


@attrs.frozen
class StoredBitsAndBytes(BitsAndBytes):
    """A scheme of SCHEMES that a checkpoint is already in, by the `quantization_config` of its config.json."""

    quantization_config: Mapping[str, Any]
    stored = True

    def config(self, dtype: torch.dtype) -> Any:
        """See `Quantization`: as it was saved, whatever the `dtype`."""
        import transformers

        quieten()
        return transformers.BitsAndBytesConfig.from_dict(dict(self.quantization_config))


def quieten() -> None:
    """Keep bitsandbytes' remarks back: at every product that it casts, and once that kernels of the hub are missing."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
