"""Log probabilities of given tokens, aligned, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext


def score(context: NativeContext, batch: Seq[npt.NDArray[np.int32]]) -> list[npt.NDArray[np.float32]]:
    """Natural-log probability of each next token: ids [T] → float32 [T-1] for each entry, none longer than the context.

    Entry i of a result is log p(ids[i + 1] | ids[: i + 1]). The last id of an entry is only ever a target, so it is not
    computed. As many entries as the context has places are computed together.
    """
    results = [np.zeros(max(0, len(ids) - 1), np.float32) for ids in batch]
    entries = [entry for entry, ids in enumerate(batch) if len(ids) > 1]
    places = context.shape.places
    for start in range(0, len(entries), places):
        group = entries[start : start + places]
        scores = _score_group(context, [batch[entry] for entry in group])
        ends = np.cumsum([len(results[entry]) for entry in group])
        for entry, part in zip(group, np.split(scores, ends[:-1]), strict=True):
            results[entry] = part
    return results


def _score_group(context: NativeContext, group: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.float32]:
    """Entries [T0], [T1], … of at least two ids, each at a place of its own → float32 [T0-1 + T1-1 + …]."""
    lengths = [len(ids) - 1 for ids in group]
    tokens = np.concatenate([ids[:-1] for ids in group])
    targets = np.concatenate([ids[1:] for ids in group])
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    places = np.repeat(np.arange(len(group), dtype=np.int32), lengths)
    scores = np.empty(len(tokens), np.float32)
    context.clear()
    for start in range(0, len(tokens), context.shape.outputs):
        stop = min(start + context.shape.outputs, len(tokens))
        rows = stop - start
        context.tokens[:rows] = tokens[start:stop]
        context.positions[:rows] = positions[start:stop]
        context.places[:rows] = places[start:stop]
        context.wanted[:rows] = 1
        scores[start:stop] = _pick(context.decode(rows)[:rows], targets[start:stop])
    return scores


def _pick(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Natural-log softmax of each row of `logits` [R, V] at its target [R] → float32 [R]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(targets)), targets]
    np.exp(shifted, out=shifted)
    scores: npt.NDArray[np.float32] = (chosen - np.log(shifted.sum(axis=1, dtype=np.float64))).astype(np.float32)
    return scores
