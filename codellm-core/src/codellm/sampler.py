"""From logits to one token, the same on every backend that computes logits on the host."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from codellm.errors import BackendError
from codellm.sequence import Sequence, Token

if TYPE_CHECKING:
    import numpy.typing as npt


class Sampler:
    """Draws the tokens of one sequence.

    The order is repetition penalty, temperature, top-k, top-p, min-p. Greedy is the exact
    argmax with the lowest id on ties. The generator is seeded from (seed, sequence index).
    """

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        seed = sequence.params.seed
        self._rng = np.random.default_rng(None if seed is None else [seed, sequence.index])

    def __call__(self, logits: npt.NDArray[np.float32]) -> Token:
        """The next token from `logits` [V], float32.

        Raises:
            BackendError: the logits hold NaN or no finite value.
        """
        params = self._sequence.params
        scores = logits
        if params.repetition_penalty != 1.0:
            scores = self._penalized(logits, params.repetition_penalty)
        id = int(scores.argmax())  # the first of equal maxima; NaN counts as the maximum
        top = float(scores[id])
        if not math.isfinite(top):
            raise BackendError(f"the model computed {top} as a logit: its weights or its file are broken")
        if params.temperature > 0:
            id = self._draw(scores, top)
        greatest = top if scores is logits else None
        if params.logprobs is None:
            return Token(id, self._sequence, log_probability(logits, id, greatest))
        likeliest = ranked(logits, params.logprobs)
        own, *others = log_probabilities(logits, [id, *likeliest], greatest)
        return Token(id, self._sequence, own, tuple(zip(likeliest, others, strict=True)))

    def _penalized(self, logits: npt.NDArray[np.float32], penalty: float) -> npt.NDArray[np.float32]:
        """Logits of ids already in prompt or output divided (positive) or multiplied (negative) by `penalty`.

        Keskar et al. 2019, CTRL, section 4.1, with the sign rule of transformers and vLLM.
        """
        scores = logits.copy()
        seen = np.unique(np.fromiter((*self._sequence.prompt_ids, *self._sequence.token_ids), dtype=np.int64))
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
        return scores

    def _draw(self, scores: npt.NDArray[np.float32], top: float) -> int:
        """A token of `scores` [V], the greatest of which is `top`."""
        params = self._sequence.params
        # float32 has a fast exponential and is as exact as the logits; sums of a whole vocabulary need float64
        weights = scores - np.float32(top)
        weights /= np.float32(max(params.temperature, 1e-30))
        np.exp(weights, out=weights)  # the likeliest weighs 1
        ids: npt.NDArray[np.intp] | None = None  # all of them
        if params.top_k or params.top_p < 1.0:
            ids = _likeliest(weights, params.top_k or len(weights), params.top_p)
            weights = weights[ids]
        if params.min_p > 0.0:
            weights[weights < params.min_p] = 0.0
        index = _index(weights, self._rng.random())
        return index if ids is None else int(ids[index])


_BLOCK = 64
"""Entries of a vocabulary that are added up, or whose greatest is found, before anything is done with each."""


def _likeliest(weights: npt.NDArray[np.float32], count: int, share: float) -> npt.NDArray[np.intp]:
    """The ids of the `count` greatest of `weights` [V], and of these the smallest set that holds `share` of their sum.

    In the order of their ids, and of equals those with the lowest. Only those that may be wanted are sorted, and only
    their weights: sorting the ids of a whole vocabulary takes milliseconds, as long as a small model's step.
    """
    if count < len(weights):
        maxima = np.maximum.reduceat(weights, np.arange(0, len(weights), _BLOCK))
        last = len(maxima) - count
        # `count` blocks have an entry of at least this
        bound = np.partition(maxima, last)[last] if last >= 0 else -math.inf
        total = None
    elif share >= 1.0:
        bound, total = -math.inf, None
    else:
        total = float(weights.sum(dtype=np.float64))
        bound = (1.0 - share) * total / len(weights)  # all below it together weigh (1 - share) of the sum at most
    among = (weights >= bound).nonzero()[0]
    greatest = np.sort(weights[among])[::-1][:count]
    if share < 1.0:
        edges = greatest.cumsum(dtype=np.float64)
        greatest = greatest[: int(edges.searchsorted(share * (total or edges[-1]))) + 1]
    ids: npt.NDArray[np.intp] = among[weights[among] >= greatest[-1]]
    if len(ids) > len(greatest):
        equals = (weights[ids] == greatest[-1]).nonzero()[0]
        ids = np.delete(ids, equals[len(greatest) - len(ids) :])
    return ids


def _index(weights: npt.NDArray[np.float32], share: float) -> int:
    """The index of `weights` [n] at which the running sum passes `share` (in [0, 1)) of the whole.

    First among the sums of blocks, then inside one: a running sum of a whole vocabulary takes longer than all the rest.
    """
    sums = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK), dtype=np.float64)
    edges = sums.cumsum()
    drawn = share * edges[-1]
    block = min(int(edges.searchsorted(drawn, side="right")), int(sums.nonzero()[0][-1]))
    first = block * _BLOCK
    inside = weights[first : first + _BLOCK]
    index = inside.cumsum(dtype=np.float64).searchsorted(drawn - (edges[block - 1] if block else 0.0), side="right")
    return first + min(int(index), int(inside.nonzero()[0][-1]))  # never the end itself, nor a zero, by rounding


def ranked(scores: npt.NDArray[np.float32], count: int) -> list[int]:
    """The ids of the `count` greatest of `scores` [V], the greatest first, and of equals the lowest id."""
    ids = _likeliest(scores, count, 1.0) if count else np.zeros(0, np.intp)
    found: list[int] = ids[np.argsort(-scores[ids], kind="stable")].tolist()
    return found


def log_probability(logits: npt.NDArray[np.float32], id: int, top: float | None = None) -> float:
    """Natural-log softmax of `logits` [V] at `id`; `top` is the greatest of them, where it is known."""
    return log_probabilities(logits, [id], top)[0]


def log_probabilities(logits: npt.NDArray[np.float32], ids: list[int], top: float | None = None) -> list[float]:
    """Natural-log softmax of `logits` [V] at each of `ids`; `top` is the greatest of them, where it is known."""
    shifted = logits - np.float32(logits.max() if top is None else top)
    own: list[float] = shifted[ids].tolist()
    np.exp(shifted, out=shifted)
    total = math.log(shifted.sum())  # numpy sums pairwise: float32 is enough
    return [each - total for each in own]


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Natural-log softmax of each row of `logits` [R, V]."""
    scores: npt.NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores
