"""The table as a codellm Model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from codellm import ByteTokenizer, CodellmError, Model, ModelInfo, Sampler, Sequence, Slots, Token
from codellm.errors import ContextLengthError, InvalidValueError
from codellm_ngram.table import Table


class NgramModel(Model):
    """Computes the next byte's logits from the last `order` bytes."""

    def __init__(self, info: ModelInfo, table: Table, order: int) -> None:
        self.info = info
        self.tokenizer = ByteTokenizer()
        self._table = table
        self._order = order

    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        with self.claim():
            slots = Slots(sequences, self.info.batch_size)
            samplers: dict[Sequence, Sampler] = {}
            while running := slots.refill():
                samplers = {one: samplers.get(one) or Sampler(one) for one in running}
                yield list(self._step(samplers))

    def _step(self, samplers: dict[Sequence, Sampler]) -> Iterator[Token]:
        for one, sampler in samplers.items():
            try:
                yield sampler(self._next(self._checked(one.prompt_ids) + one.token_ids))
            except CodellmError as error:  # the fault of this sequence alone: the others go on
                one.error = error

    def logits(self, ids: Seq[int]) -> npt.NDArray[np.float32]:
        with self.claim():
            return self._next(self._checked(ids))

    def score(self, batch: Seq[Seq[int]]) -> list[npt.NDArray[np.float32]]:
        with self.claim():
            return [self._score(self._checked(ids)) for ids in batch]

    def _score(self, ids: list[int]) -> npt.NDArray[np.float32]:
        scores = [self._next(ids[:place])[ids[place]] for place in range(1, len(ids))]
        return np.array(scores, np.float32)  # [T - 1]

    def _next(self, ids: list[int]) -> npt.NDArray[np.float32]:
        return np.log(self._table.probabilities(ids, self._order)).astype(np.float32)  # [257]

    def _checked(self, ids: Seq[int]) -> list[int]:
        if len(ids) > self.info.context_length:
            raise ContextLengthError(f"{len(ids)} tokens do not fit the context of {self.info.context_length}")
        if not ids or not 0 <= min(ids) <= max(ids) < self.tokenizer.vocab_size:
            raise InvalidValueError("give at least one token, and only tokens of the vocabulary")
        return list(ids)
