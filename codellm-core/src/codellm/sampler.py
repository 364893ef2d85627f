"""From logits to one token, the same on every backend that computes logits on the host."""

from __future__ import annotations

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
        id = int(np.argmax(scores))  # the first of equal maxima; NaN counts as the maximum
        top = scores[id]
        if not np.isfinite(top):
            raise BackendError(f"the model computed {top} as a logit: its weights or its file are broken")
        if params.temperature > 0:
            id = self._draw(scores)
        return Token(id, self._sequence, log_probability(logits, id))

    def _penalized(self, logits: npt.NDArray[np.float32], penalty: float) -> npt.NDArray[np.float32]:
        """Logits of ids already in prompt or output divided (positive) or multiplied (negative) by `penalty`.

        Keskar et al. 2019, CTRL, section 4.1, with the sign rule of transformers and vLLM.
        """
        scores = logits.copy()
        seen = np.unique(np.fromiter((*self._sequence.prompt_ids, *self._sequence.token_ids), dtype=np.int64))
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
        return scores

    def _draw(self, scores: npt.NDArray[np.float32]) -> int:
        params = self._sequence.params
        # float32 has a fast exponential and is as exact as the logits; sums of a whole vocabulary need float64
        weights = np.exp((scores - scores.max()) / np.float32(max(params.temperature, 1e-30)))
        total = weights.sum(dtype=np.float64)
        kept: npt.NDArray[np.intp] | None = None  # all, in the order of their ids: no need to sort them
        if params.top_k or params.top_p < 1.0:
            kept = _likeliest(weights, params.top_k, params.top_p * total)
            weights = weights[kept]
            if params.top_k:
                total = weights.sum(dtype=np.float64)
            if params.top_p < 1.0:
                # the smallest set whose probability reaches top_p: keep while what came before has not reached it
                weights = weights[
                    : int(np.searchsorted(np.cumsum(weights, dtype=np.float64), params.top_p * total)) + 1
                ]
        if params.min_p > 0.0:
            weights = np.where(weights >= params.min_p, weights, np.float32(0))  # the likeliest weighs 1
        edges = np.cumsum(weights, dtype=np.float64)
        drawn = min(self._rng.random() * edges[-1], np.nextafter(edges[-1], 0.0))  # never the end itself, by rounding
        place = int(np.searchsorted(edges, drawn, side="right"))
        return place if kept is None else int(kept[place])


def _likeliest(weights: npt.NDArray[np.float32], count: int, mass: float) -> npt.NDArray[np.intp]:
    """The ids of the greatest `weights` [V], greatest first: `count` of them, or where it is 0 enough to reach `mass`.

    Sorting a whole vocabulary takes milliseconds, as long as a small model's step; the likeliest few mostly suffice.
    """
    size = count or 256
    while size < len(weights):
        among = np.argpartition(weights, len(weights) - size)[-size:]
        if count or weights[among].sum(dtype=np.float64) >= mass:
            among.sort()  # of equals, the lowest id comes first
            return among[np.argsort(-weights[among], kind="stable")]
        size *= 8
    return np.argsort(-weights, kind="stable")


def log_probability(logits: npt.NDArray[np.float32], id: int) -> float:
    """Natural-log softmax of `logits` [V] at `id`."""
    top = logits.max()
    return float(logits[id] - top - np.log(np.exp(logits - top).sum()))  # numpy sums pairwise: float32 is enough


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Natural-log softmax of each row of `logits` [R, V]."""
    scores: npt.NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores
