"""Bits per byte of a model on a text, and the gate that every file scheme passes before its artifact is kept."""

from __future__ import annotations

import math
from importlib.resources import files

import attrs

from codellm.artifacts.opening import open_source
from codellm.asking import score
from codellm.model import Model
from codellm.sources import ModelSource

GATE_TOKENS = 512
"""Enough that a broken tensor shows, few enough that a 7B on a laptop CPU takes seconds."""


@attrs.frozen
class GateFigures:
    """What the gate measured: bits per byte of the artifact, of what it was made from, and the bound on the rise."""

    bits_per_byte: float
    reference: float | None
    bound: float | None

    @property
    def fault(self) -> str:
        """Why the gate refuses, empty where it does not."""
        if not math.isfinite(self.bits_per_byte):
            return f"computes {self.bits_per_byte}; the weights are broken, nothing is kept"
        if self.reference is None or self.bound is None or self.bits_per_byte <= self.reference + self.bound:
            return ""
        return (
            f"rises from {self.reference:.3f} to {self.bits_per_byte:.3f} bits per byte, over its bound of "
            f"{self.bound:g}; not kept, choose a scheme with more bits"
        )


def bits_per_byte(model: Model, text: str, *, max_tokens: int = GATE_TOKENS) -> float:
    """-log2 p(text) / UTF-8 bytes, over the first `max_tokens` tokens of `text`, the first of them given.

    A figure for comparing two files of one model, not for a table: see codellm-eval for that.
    """
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text)[: min(max_tokens, model.info.context_length)]
    size = sum(len(tokenizer.token_bytes(id)) for id in ids[1:])
    [scores] = score(model, [ids], allow_nan=True)  # the gate says itself what is wrong then
    return -float(scores.sum(dtype="float64")) / math.log(2) / max(size, 1)


def measure(source: ModelSource) -> float:
    """Bits per byte of `source` on the gate's text, or on as much of it as the model's own context takes."""
    with open_source(source) as model:
        return bits_per_byte(model, gate_text())


def gate_text() -> str:
    """The text the gate reads: modules of codellm 0.1.0, frozen, so that a figure is the same in every version."""
    return files("codellm").joinpath("data", "gate.txt").read_text("utf-8")
