"""The file schemes of this package: GGUF at full and half precision, and llama.cpp's quantizations of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from codellm.scheme import PRECISIONS, CalibrationUse, Scheme
from codellm_cpu.blocks import BLOCKS

CONVERSIONS = tuple(PRECISIONS.values())
"""Schemes that the converter writes from safetensors; what llama.cpp quantizes starts from one of them."""


@attrs.frozen
class FileType:
    """A type of file that llama.cpp quantizes to.

    `number` is llama.h's enum llama_ftype, and `main` the type of most of its tensors (ggml.h, enum ggml_type); most
    mix in larger types where it matters, and embedding and output keep 5 bits or more. `calibration` says whether an
    importance matrix enters, and `bound` is the gate's: docs/quantization.md derives both.
    """

    name: str
    number: int
    main: int
    calibration: CalibrationUse
    bound: float
    description: str

    @property
    def block(self) -> int:
        """Weights of a block of the main type: rows are made of whole blocks."""
        return BLOCKS[self.main][0]

    @property
    def bits(self) -> float:
        """Bits that a weight takes in the main type, with its share of the block's scales."""
        block, size = BLOCKS[self.main]
        return size * 8 / block


# Left out, with the reason in docs/quantization.md: mxfp4_moe and nvfp4.
_TYPES = (
    FileType("q8_0", 7, 8, "none", 0.01, "8 bits, near-lossless"),
    FileType("q6_k", 18, 14, "takes", 0.03, "6 bits"),
    FileType("q5_1", 9, 7, "takes", 0.05, "5 bits, blocks with an offset"),
    FileType("q5_k_m", 17, 13, "takes", 0.04, "5 bits, sensitive tensors at 6"),
    FileType("q5_k_s", 16, 13, "takes", 0.06, "5 bits"),
    FileType("q5_0", 8, 6, "takes", 0.08, "5 bits, plain blocks"),
    FileType("q4_1", 3, 3, "takes", 0.17, "4 bits, blocks with an offset"),
    FileType("q4_k_m", 15, 12, "takes", 0.13, "4 bits, sensitive tensors at 6"),
    FileType("q4_k_s", 14, 12, "takes", 0.18, "4 bits, few tensors at more"),
    FileType("q4_0", 2, 2, "takes", 0.21, "4 bits, plain blocks"),
    FileType("iq4_nl", 25, 20, "takes", 0.2, "4 bits, uneven steps"),
    FileType("iq4_xs", 30, 23, "takes", 0.22, "4 bits, uneven steps, larger blocks"),
    FileType("q3_k_l", 13, 11, "wants", 0.29, "3 bits, sensitive tensors at 5"),
    FileType("q3_k_m", 12, 11, "wants", 0.33, "3 bits, sensitive tensors at 4 and 5"),
    FileType("q3_k_s", 11, 11, "wants", 0.75, "3 bits"),
    FileType("iq3_m", 27, 21, "wants", 0.37, "3 bits by codebook, sensitive tensors at 4"),
    FileType("iq3_s", 26, 21, "wants", 0.48, "3 bits by codebook"),
    FileType("iq3_xs", 22, 21, "needs", 0.91, "3 bits by codebook, attention in smaller ones"),
    FileType("iq3_xxs", 23, 18, "needs", 1.0, "3 bits by codebook, attention at 2"),
    FileType("q2_k", 10, 10, "wants", 1.0, "2 bits, sensitive tensors at 3"),
    FileType("q2_k_s", 21, 10, "needs", 1.0, "2 bits"),
    FileType("iq2_m", 29, 22, "needs", 1.0, "2 bits by codebook, sensitive tensors at 3"),
    FileType("iq2_s", 28, 17, "needs", 1.0, "2 bits by codebook, sensitive tensors at 3"),
    FileType("iq2_xs", 20, 17, "needs", 1.0, "2 bits by codebook"),
    FileType("q2_0", 41, 42, "none", 1.0, "4 levels, for models trained with few"),
    FileType("iq2_xxs", 19, 16, "needs", 1.0, "2 bits by codebook"),
    FileType("tq2_0", 37, 35, "none", 1.0, "3 levels, for models trained with them"),
    FileType("iq1_m", 31, 29, "needs", 1.0, "under 2 bits by codebook"),
    FileType("tq1_0", 36, 34, "none", 1.0, "3 levels packed closely, for models trained with them"),
    FileType("iq1_s", 24, 19, "needs", 1.0, "under 2 bits by codebook"),
    FileType("q1_0", 40, 41, "none", 1.0, "2 levels, for models trained with them"),
)

FILE_TYPES: Mapping[str, FileType] = MappingProxyType({kind.name: kind for kind in _TYPES})
"""What llama.cpp quantizes to, by name, from many bits to few."""


def _conversion(name: str, bits: float, description: str) -> Scheme:
    return Scheme(
        name=name,
        bits=bits,
        applies="file",
        format="gguf",
        takes=frozenset({"safetensors"}),
        description=description,
    )


def _quantization(kind: FileType) -> Scheme:
    return Scheme(
        name=kind.name,
        bits=kind.bits,
        applies="file",
        format="gguf",
        takes=frozenset({"gguf"}),
        bound=kind.bound,
        calibration=kind.calibration,
        description=kind.description,
    )


SCHEMES: tuple[Scheme, ...] = (
    _conversion("f32", 32.0, "every weight as it is computed with"),
    _conversion("f16", 16.0, "half precision; refuses weights beyond 65504"),
    _conversion("bf16", 16.0, "half precision with float32's range"),
    *map(_quantization, _TYPES),
)
