"""A GGUF file's logits against those of the checkpoint it was converted from.

`NumpyModel` computes in float32 from the source's own weights, so llama.cpp differs from it by rounding even where the
conversion is right. How much that may be is asked of the model itself: the reference computes a second stream beside
the first, whose activations are rounded before each product of matrices, to 8 bits for bf16 (as llama.cpp rounds them)
and to 11 for f16, and for f32 too, since its key-value cells and its table of GELU are half precision whatever the
file. The distance of the two streams is what one rounding of that kind does to this model (of a position's own distance
and that of all positions, relative to the spread of the logits, the greater). llama.cpp may be `FACTOR` times as far
from the first stream, for it rounds elsewhere too: cells, sums, weights that the source has with more bits.

A single logit may differ by `OUTLIER` times that: of a hundred thousand errors spread like a normal distribution the
greatest is 4.4 standard deviations out. A greedy token may be another one where that is a tie: where the reference's
own lead of its token over llama.cpp's is within `TIE` times the tolerance.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from codellm_cpu.convert.numpy_model import Array
from codellm_cpu.llama.library import ContextShape, open_context

if TYPE_CHECKING:
    from codellm_cpu.llama.library import NativeModel

BITS = {"f32": 11, "f16": 11, "bf16": 8}
"""Of the significand of what llama.cpp computes with, by scheme."""

FACTOR = 6.0
"""Measured: 0.7 to 3.5, over three architectures of random weights of three sizes and codellm-demo, in each scheme."""

FLOOR = 2.0**-11
"""The least distance of the streams that is reckoned with: one rounding in half precision."""

OUTLIER = 6.0
TIE = 2.0


def native_logits(native: NativeModel, ids: list[int], threads: int) -> Array:
    """Logits by llama.cpp: `ids` [T] → [T, V]. Without its fused attention, which sums in half precision."""
    rows = len(ids)
    shape = ContextShape(context_length=rows, slots=1, chunk=rows, outputs=rows, threads=threads, flash_attn="off")
    with contextlib.ExitStack() as stack:
        context = open_context(stack, native, shape)
        context.tokens[:rows] = ids
        context.positions[:rows] = np.arange(rows)
        context.wanted[:rows] = 1
        return context.decode(rows)[:rows].copy()


def compare_logits(
    computed: Array, expected: Array, rounded: Array, scheme: str
) -> tuple[dict[str, float | int], str | None]:
    """Compare llama.cpp's logits with both streams of the reference, each [T, V]: the figures, and what is wrong.

    They are held together on average over the vocabulary, one by one, and by the greedy token.
    """
    computed, expected, rounded = centred(computed), centred(expected), centred(rounded)
    scale, effect = spread(expected), spread(rounded - expected)  # [T]
    overall = scale * (spread(effect) / np.maximum(spread(scale), TINY))
    allowed = FACTOR * np.maximum(np.maximum(effect, overall), FLOOR * scale)  # [T]
    distance, absolute = spread(computed - expected), np.abs(computed - expected).max(axis=1)
    lead = expected.max(axis=1) - expected[np.arange(len(expected)), computed.argmax(axis=1)]
    worst = int((distance / np.maximum(allowed, TINY)).argmax())
    figures: dict[str, float | int] = {
        "positions": len(expected),
        "greedy_equal": int((lead == 0).sum()),
        "relative": short(distance[worst] / max(scale[worst], TINY)),
        "tolerance": short(allowed[worst] / max(scale[worst], TINY)),
        "absolute": short(absolute.max()),
    }
    for what, values, limit in (
        ("on average", distance, allowed),
        ("at one token", absolute, OUTLIER * allowed),
        ("at the greedy token", lead, TIE * allowed),
    ):
        wrong = np.flatnonzero(~(values <= limit))  # NaN is wrong too
        if len(wrong):
            position = int(wrong[0])
            return figures, (
                f"the logits of position {position} are off by {values[position]:.3g} {what}, where rounding in "
                f"{scheme} explains {limit[position]:.3g}"
            )
    return figures, None


TINY = 1e-30
"""For models that compute nothing but zeros."""


def centred(logits: Array) -> Array:
    """Logits [T, V] without what all of a position share: it changes no probability."""
    shared: Array = logits.mean(axis=1, keepdims=True)
    return logits - shared


def spread(values: Array) -> Array:
    """The root of the mean square over the last axis."""
    squares: Array = (values**2).mean(axis=-1)
    return np.sqrt(squares)


def short(value: float) -> float:
    """Figure cut to three digits, as the manifest has it."""
    return float(f"{value:.3g}")
