"""Sampling on the device, a token for each row of a batch: the same choice as `codellm.sampler.Sampler` makes.

The order is repetition penalty, temperature, top-k, top-p, min-p; greedy is the exact argmax with the lowest id on
ties. A draw is one uniform number per row, which the host takes from the sequence's own generator: so a seed gives the
same tokens here and there, but for rounding.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch

from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.torch.device import upload


class BatchSampler:
    """Samples for the sequences of P slots: what each asks for is set when it takes its slot."""

    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        self._device = device
        self._sequences: list[Sequence | None] = [None] * slots
        self._generators: list[np.random.Generator | None] = [None] * slots
        self._vocabulary = vocabulary
        self._changed = True
        self._params: SamplingTensors | None = None
        """None where every sequence is greedy."""
        self._seen: torch.Tensor | None = None
        self._rows: tuple[list[int], torch.Tensor] | None = None

    def seat(self, slot: int, sequence: Sequence) -> None:
        """Give `slot` to `sequence`: its parameters, its generator, and the ids of its prompt as seen."""
        params = sequence.params
        self._sequences[slot] = sequence
        self._generators[slot] = np.random.default_rng(None if params.seed is None else [params.seed, sequence.index])
        self._changed = True
        if params.repetition_penalty != 1.0:
            if self._seen is None:
                self._seen = torch.zeros(
                    (len(self._sequences), self._vocabulary), dtype=torch.bool, device=self._device
                )
            ids = upload(sequence.prompt_ids + sequence.token_ids, self._device)
            self._seen[slot].zero_().index_fill_(0, ids, True)

    def leave(self, slot: int) -> None:
        """Forget who was in `slot`, so that it asks for no costly step."""
        self._sequences[slot] = self._generators[slot] = None
        self._changed = True

    def choose(
        self, logits: torch.Tensor, slots: list[int], greedy: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose by `logits` [P, V] for each of `slots` → ids [P], log-probabilities [P], NaN where logits are broken.

        `greedy` is what `likeliest` would give, where that is known. The rows of other slots hold any ids. Nothing here
        waits for the device.
        """
        if self._changed:
            self._params, self._changed = SamplingTensors.of(self._sequences, self._device), False
        params = self._params
        if params is None:
            return likeliest(logits) if greedy is None else greedy
        uniform = upload(self._uniform(slots), self._device, torch.float64) if params.drawn else None
        if self._seen is None or not params.penalized:
            return sample(logits, params, uniform, None)
        ids, logprobs = sample(logits, params, uniform, self._seen)
        if self._rows is None or self._rows[0] != slots:
            self._rows = slots, upload(slots, self._device)
        rows = self._rows[1]
        # to assign True by an index would copy it from the host, which waits for that
        self._seen.index_put_((rows, ids[rows]), rows.new_ones((), dtype=torch.bool))
        return ids, logprobs

    def likeliest(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The likeliest tokens of `logits` [P, V] for whoever asks for most of them → ids, log-probabilities [P, K].

        None where nobody asks for any.
        """
        asked = max((one.params.logprobs or 0 for one in self._sequences if one is not None), default=0)
        return ranked(logits, min(asked, logits.shape[-1])) if asked else None

    def _uniform(self, slots: list[int]) -> list[float]:
        numbers = [0.0] * len(self._sequences)
        for slot in slots:
            sequence, generator = self._sequences[slot], self._generators[slot]
            if sequence is not None and generator is not None and sequence.params.temperature > 0:
                numbers[slot] = generator.random()
        return numbers


GREEDY = SamplingParams()


@attrs.frozen(eq=False)
class SamplingTensors:
    """The parameters of every row, each [B, 1], and whether any row asks for the costly steps."""

    temperature: torch.Tensor
    """Next to nothing where a row is greedy."""
    greedy: torch.Tensor
    """Whether a row is, [B]."""
    top_k: torch.Tensor
    """Infinity where all are kept."""
    top_p: torch.Tensor
    """Infinity where all are kept."""
    min_p: torch.Tensor
    penalty: torch.Tensor
    filtered: torch.Tensor
    """Whether a row asks for top-k or top-p."""
    drawn: bool
    sorts: bool
    floored: bool
    """Whether a drawn row asks for min-p."""
    penalized: bool

    @classmethod
    def of(cls, sequences: list[Sequence | None], device: torch.device) -> SamplingTensors | None:
        """Parameters of the sequences, None where all just take the likeliest; free slots do."""
        params = [GREEDY if sequence is None else sequence.params for sequence in sequences]
        drawn = [each for each in params if each.temperature > 0]
        penalized = any(each.repetition_penalty != 1.0 for each in params)
        if not drawn and not penalized:
            return None
        rows = [
            (
                max(each.temperature, 1e-30),
                each.temperature == 0,
                each.top_k or math.inf,
                each.top_p if each.top_p < 1.0 else math.inf,
                each.min_p,
                each.repetition_penalty,
                _filtered(each),
            )
            for each in params
        ]
        columns = upload(rows, device, torch.float64)[:, :, None].unbind(1)
        temperature, greedy, top_k, top_p, min_p, penalty, filtered = columns
        return cls(
            temperature=temperature.float(),
            greedy=greedy[:, 0] > 0,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p.float(),
            penalty=penalty.float(),
            filtered=filtered > 0,
            drawn=bool(drawn),
            sorts=any(map(_filtered, drawn)),
            floored=any(each.min_p > 0 for each in drawn),
            penalized=penalized,
        )


def _filtered(params: SamplingParams) -> bool:
    return bool(params.top_k or params.top_p < 1.0)


def likeliest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B] of the greatest of `logits` [B, V], the lowest of equals, and their log-probabilities [B].

    Where a logit is NaN or infinite, so is the sum of all: their row is NaN. A device runs three kernels: log_softmax
    is one, which writes rows that nobody reads; logsumexp, which writes as much, is nine.
    """
    ids = logits.argmax(dim=-1)  # the first of equal maxima
    return ids, logits.log_softmax(dim=-1).gather(-1, ids[:, None])[:, 0]


def ranked(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` likeliest ids [B, K] of `logits` [B, V], and their log-probabilities [B, K].

    The likeliest first, and of equals the lowest id: topk alone takes any of equals.
    """
    least = logits.topk(count, dim=-1).values[:, -1:]  # [B, 1]
    above = logits > least
    room = count - above.sum(dim=-1, keepdim=True)
    equals = logits == least
    kept = above | (equals & (equals.cumsum(dim=-1) <= room))
    ids = torch.where(kept, logits, -math.inf).topk(count, dim=-1).indices.sort(dim=-1).values
    logprobs = logits.log_softmax(dim=-1).gather(-1, ids)
    logprobs, order = logprobs.sort(dim=-1, descending=True, stable=True)
    return ids.gather(-1, order), logprobs


def sample(
    logits: torch.Tensor, params: SamplingTensors, uniform: torch.Tensor | None, seen: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose by `logits` [B, V] float32, `uniform` [B] in [0, 1), `seen` [B, V] → ids [B], their log-probabilities [B].

    The log-probabilities are those before all cuts. Where no row is drawn, `uniform` may be None.
    """
    scores = logits if seen is None else penalized(logits, params.penalty, seen)
    ids = scores.argmax(dim=-1)  # the first of equal maxima
    top = scores.gather(-1, ids[:, None])  # [B, 1]
    if params.drawn and uniform is not None:
        ids = torch.where(params.greedy, ids, draw(scores, top, params, uniform))
    logprobs = logits.log_softmax(dim=-1).gather(-1, ids[:, None])  # [B, 1]
    if seen is not None:  # a penalty below 1 may have made a logit infinite
        logprobs = torch.where(top.isfinite(), logprobs, torch.nan)
    return ids, logprobs[:, 0]


def penalized(logits: torch.Tensor, penalty: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Logits of seen ids divided (positive) or multiplied (negative) by the row's penalty: Keskar et al. 2019, 4.1."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(scores: torch.Tensor, top: torch.Tensor, params: SamplingTensors, uniform: torch.Tensor) -> torch.Tensor:
    """An id of each row [B], by inverting the cumulative distribution at `uniform` [B]."""
    weights = ((scores - top) / params.temperature).exp()  # [B, V], the likeliest 1
    if params.sorts:
        weights = top_k_top_p(weights, params)
    if params.floored:
        weights = torch.where(weights >= params.min_p, weights, 0.0)
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)  # sums of a whole vocabulary need float64
    total = cumulative[:, -1:]
    drawn = torch.minimum(uniform[:, None] * total, total.nextafter(torch.zeros_like(total)))  # never the end itself
    return (cumulative <= drawn).sum(dim=-1).clamp_max(weights.shape[-1] - 1)


def top_k_top_p(weights: torch.Tensor, params: SamplingTensors) -> torch.Tensor:
    """Weights [B, V] cut by top-k, then top-p: 0 for what is cut; rows without cuts stay as they are.

    Of top-p is kept the smallest set whose probability reaches it: while what came before has not.
    """
    ranked, order = weights.sort(dim=-1, descending=True, stable=True)  # of equals, the lowest id comes first
    rank = torch.arange(weights.shape[-1], device=weights.device)
    ranked = torch.where(rank < params.top_k, ranked, 0.0)
    cumulative = ranked.cumsum(dim=-1, dtype=torch.float64)
    before = torch.nn.functional.pad(cumulative[:, :-1], (1, 0))
    ranked = torch.where(before < params.top_p * cumulative[:, -1:], ranked, 0.0)
    return torch.where(params.filtered, torch.zeros_like(weights).scatter(-1, order, ranked), weights)
