"""What a model makes of one text: the unit that rows are compared by."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs


@attrs.frozen(kw_only=True)
class Scored:
    """A document or a task. `nll` sums -ln p over the `tokens` scored, `bytes` is the UTF-8 size of the text.

    `agreed` counts those for which the likeliest token is that of the reference row, right or wrong: see `canonical`;
    None where nobody compared.
    """

    name: str
    bytes: int
    tokens: int
    nll: float
    agreed: int | None = None


def bits_per_byte(texts: Iterable[Scored]) -> float:
    """Bits, -log2, of the texts' probability over their bytes."""
    texts = tuple(texts)
    return math.fsum(text.nll for text in texts) / math.log(2) / sum(text.bytes for text in texts)
