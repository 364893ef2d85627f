"""Log probabilities of given tokens and of whole vocabularies, aligned, in chunks of bounded memory.

One text after the other: several in one decode are no faster, since the rows of a chunk fill the processor already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from codellm.sampler import log_softmax

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext


def score(context: NativeContext, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Log-probability (natural) of each next token: ids [T], not longer than the context → float32 [T-1].

    Entry i is log p(ids[i + 1] | ids[: i + 1]). The last id is only ever a target, so it is not computed.
    """
    scores = np.zeros(max(0, len(ids) - 1), np.float32)
    for first, logits in _chunks(context, ids[:-1], 0):
        stop = first + len(logits)
        scores[first:stop] = picked = _pick(logits, ids[first + 1 : stop + 1])
        context.spoilt |= bool(np.isnan(picked).any())
    return scores


def distributions(context: NativeContext, ids: npt.NDArray[np.int32], start: int) -> Iterator[npt.NDArray[np.float32]]:
    """Log-probability (natural) of every token after each of `ids[start:]`: blocks [n, V]."""
    for _, logits in _chunks(context, ids, start):
        scores = log_softmax(logits)
        context.spoilt |= bool(np.isnan(scores[:, 0]).any())  # of one NaN the whole row becomes NaN
        yield scores


def _chunks(
    context: NativeContext, ids: npt.NDArray[np.int32], start: int
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The logits after each of `ids[start:]`: the index of the first row and rows [n, V], valid until the next ones.

    Chunks are cut at the same positions whatever is asked for and whatever else is scored, so that the numbers depend
    on neither.
    """
    size = context.shape.outputs
    context.clear()
    try:
        for begin in range(0, len(ids), size):
            stop = min(begin + size, len(ids))
            rows, first = stop - begin, max(begin, start)
            context.tokens[:rows] = ids[begin:stop]
            context.positions[:rows] = np.arange(begin, stop)
            context.slots[:rows] = 0
            context.wanted[:rows] = context.positions[:rows] >= start
            logits = context.decode(rows)
            if first < stop:
                yield first, logits[: stop - first]
    finally:
        context.clear()


def _pick(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Log-softmax of each row of `logits` [R, V] at its target [R] → float32 [R]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(targets)), targets]
    np.exp(shifted, out=shifted)
    scores: npt.NDArray[np.float32] = (chosen - np.log(shifted.sum(axis=1, dtype=np.float64))).astype(np.float32)
    return scores
