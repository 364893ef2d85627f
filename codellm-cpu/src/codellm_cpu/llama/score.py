"""Log probabilities of given tokens, aligned, in chunks of bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext


def score(context: NativeContext, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Natural-log probability of each next token: ids [T], not longer than the context → float32 [T-1].

    Entry i is log p(ids[i + 1] | ids[: i + 1]). The last id is only ever a target, so it is not computed. Chunks are
    cut at the same positions whatever else is scored, so that the numbers do not depend on the neighbours.
    """
    scores = np.zeros(max(0, len(ids) - 1), np.float32)
    context.clear()
    for start in range(0, len(scores), context.shape.outputs):
        stop = min(start + context.shape.outputs, len(scores))
        rows = stop - start
        context.tokens[:rows] = ids[start:stop]
        context.positions[:rows] = np.arange(start, stop)
        context.places[:rows] = 0
        context.wanted[:rows] = 1
        scores[start:stop] = _pick(context.decode(rows)[:rows], ids[start + 1 : stop + 1])
    context.clear()
    return scores


def _pick(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Natural-log softmax of each row of `logits` [R, V] at its target [R] → float32 [R]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(targets)), targets]
    np.exp(shifted, out=shifted)
    scores: npt.NDArray[np.float32] = (chosen - np.log(shifted.sum(axis=1, dtype=np.float64))).astype(np.float32)
    return scores
