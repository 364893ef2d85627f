"""The file schemes of this package: GGUF at full and half precision, and llama.cpp's quantizations of it."""

from __future__ import annotations

from codellm.scheme import Scheme

CONVERSIONS = ("f32", "f16", "bf16")
"""Schemes that the converter writes from safetensors; what llama.cpp quantizes starts from one of them."""


def _conversion(name: str, bits: float, description: str) -> Scheme:
    return Scheme(
        name=name,
        bits=bits,
        applies="file",
        format="gguf",
        takes=frozenset({"safetensors"}),
        description=description,
    )


def _quantization(name: str, bits: float, bound: float, description: str) -> Scheme:
    return Scheme(
        name=name,
        bits=bits,
        applies="file",
        format="gguf",
        takes=frozenset({"gguf"}),
        bound=bound,
        description=description,
    )


# Bits are those of the scheme's main block format: 32 weights with a 16-bit scale for q8_0 and q4_0, super-blocks of
# 256 for the K-quants (ggml, ggml-common.h). A file holds a little more: embedding and output keep more bits.
SCHEMES: tuple[Scheme, ...] = (
    _conversion("f32", 32.0, "every weight as it is computed with"),
    _conversion("f16", 16.0, "half precision; refuses weights beyond 65504"),
    _conversion("bf16", 16.0, "half precision with float32's range"),
    _quantization("q8_0", 8.5, 0.01, "8 bits, near-lossless"),
    _quantization("q6_k", 6.5625, 0.02, "6 bits"),
    _quantization("q5_k_m", 5.5, 0.04, "5 bits, sensitive tensors at 6"),
    _quantization("q4_k_m", 4.5, 0.10, "4 bits, sensitive tensors at 6"),
    _quantization("q4_k_s", 4.5, 0.12, "4 bits, few tensors at more"),
    _quantization("q4_0", 4.5, 0.15, "4 bits, the plain block format"),
)
