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

if TYPE_CHECKING:
    import torch

SCHEMES = (
    Scheme(name="bnb-int8", bits=8, applies="load", description="LLM.int8() of bitsandbytes"),
    Scheme(name="bnb-nf4", bits=4.5, applies="load", description="NormalFloat of bitsandbytes, blocks of 64"),
    Scheme(name="bnb-fp4", bits=4.5, applies="load", description="4-bit floats of bitsandbytes, blocks of 64"),
)
"""LLM.int8() is of Dettmers et al. 2022, NormalFloat of Dettmers et al. 2023. 64 weights of 4 bits share a float32."""

INT8: dict[str, Option[Any]] = {"threshold": amount(6.0, "an activation's size")}
"""Columns with an activation as large as `threshold` are computed in half precision."""
FOUR_BITS: dict[str, Option[Any]] = {
    "compute_dtype": choice("auto", "float16", "bfloat16", "float32"),
    "double_quant": switch("true", "false", default=False),
}
"""What products are computed in, by default the model's own type; and whether the scales are quantized too."""


def options(scheme: str | None) -> dict[str, Option[Any]]:
    """The `-o` options that `scheme` has."""
    if scheme == "bnb-int8":
        return INT8
    return FOUR_BITS if scheme in {"bnb-nf4", "bnb-fp4"} else {}


@attrs.frozen
class BitsAndBytes:
    """One of SCHEMES with its options."""

    scheme: Scheme
    options: Mapping[str, Any]

    def require(self, remedy: str) -> None:
        """See that what it needs is installed, as `remedy` does.

        Raises:
            BackendUnavailableError: it is not.
        """
        if not all(map(importlib.util.find_spec, ("bitsandbytes", "accelerate"))):
            raise BackendUnavailableError(f"{self.scheme.name} needs bitsandbytes and accelerate; {remedy}")

    def config(self, dtype: torch.dtype) -> Any:
        """What transformers is to be told, for a model in `dtype`; the rest are bitsandbytes' own defaults."""
        import torch
        import transformers

        # it warns at every product that it casts to float16, and once that faster kernels of the hub are not installed
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        if self.scheme.name == "bnb-int8":
            return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=self.options["threshold"])
        compute = self.options["compute_dtype"]
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.scheme.name.removeprefix("bnb-"),
            bnb_4bit_compute_dtype=dtype if compute == "auto" else getattr(torch, compute),
            bnb_4bit_use_double_quant=self.options["double_quant"],
        )
