"""What the benchmark scripts of quantization measure: the gate's text, and codellm-eval's held-out documents.

A difference is paired by document, and its standard error is that of a total over documents drawn at random (a ratio
estimate, Cochran, Sampling Techniques, 6.4).
"""

from __future__ import annotations

import math

from codellm import Model
from codellm.artifacts import quality
from codellm_eval.perplexity import perplexity
from codellm_eval.perplexity.documents import Document, heldout_documents

TEXT = 64 << 10
"""Bytes of held-out documents, as `codellm bench` reads."""


def documents() -> list[Document]:
    chosen, size = [], 0
    for document in heldout_documents():
        if size < TEXT:
            chosen.append(document)
            size += document.size
    return chosen


def losses(model: Model) -> tuple[float, list[float]]:
    """Bits per byte of the gate's text, and the bits of each held-out document."""
    gate = quality.bits_per_byte(model, quality.gate_text())
    return gate, [perplexity.measure(model, [each]).nll / math.log(2) for each in documents()]


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Bits per byte of `ours` minus `theirs`, and its standard error."""
    sizes = [document.size for document in documents()]
    count, total = len(sizes), sum(sizes)
    mean = (sum(ours) - sum(theirs)) / total
    rest = sum((mine - its - mean * size) ** 2 for mine, its, size in zip(ours, theirs, sizes, strict=True))
    return mean, math.sqrt(count / (count - 1) * rest) / total
