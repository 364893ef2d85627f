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
            id = self._draw(scores.astype(np.float64) / params.temperature)
        return Token(id, self._sequence, log_probability(logits, id))

    def _penalized(self, logits: npt.NDArray[np.float32], penalty: float) -> npt.NDArray[np.float32]:
        """Logits of ids already in prompt or output divided (positive) or multiplied (negative) by `penalty`.

        Keskar et al. 2019, CTRL, section 4.1, with the sign rule of transformers and vLLM.
        """
        scores = logits.copy()
        seen = np.unique(np.fromiter((*self._sequence.prompt_ids, *self._sequence.token_ids), dtype=np.int64))
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
        return scores

    def _draw(self, scores: npt.NDArray[np.float64]) -> int:
        params = self._sequence.params
        order = np.argsort(-scores, kind="stable")
        if params.top_k:
            order = order[: params.top_k]
        weights = np.exp(scores[order] - scores[order[0]])
        weights /= weights.sum()
        if params.top_p < 1.0:
            # the smallest set whose probability reaches top_p: keep while what came before has not reached it
            keep = int(np.searchsorted(np.cumsum(weights), params.top_p)) + 1
            order, weights = order[:keep], weights[:keep]
        if params.min_p > 0.0:
            kept = weights >= params.min_p * weights[0]
            order, weights = order[kept], weights[kept]
        edges = np.cumsum(weights)
        place = int(np.searchsorted(edges, self._rng.random() * edges[-1], side="right"))
        return int(order[min(place, len(order) - 1)])


def log_probability(logits: npt.NDArray[np.float32], id: int) -> float:
    """Natural-log softmax of `logits` [V] at `id`."""
    top = logits.max()
    return float(logits[id] - top - np.log(np.exp(logits - top).sum(dtype=np.float64)))
