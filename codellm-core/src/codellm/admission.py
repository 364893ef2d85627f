"""Which sequences of a `run` get a slot, with which ids, what is the fault of others, and when a slot is free again."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import numpy as np

from codellm.errors import ContextLengthError, InvalidValueError
from codellm.sequence import Sequence
from codellm.slots import Slot, Waiting, ended

if TYPE_CHECKING:
    import numpy.typing as npt


@attrs.frozen
class Limits:
    """The ids that a loaded model takes."""

    context_length: int
    """Tokens of one sequence."""
    vocab_size: int

    def fault(self, sequence: Sequence) -> Exception | None:
        """What keeps `sequence`, and it alone, from being computed."""
        ids = sequence.prompt_ids
        if not ids:
            return InvalidValueError("a prompt must have at least one token")
        if len(ids) > self.context_length:
            return ContextLengthError(f"the prompt has {len(ids)} tokens, the context {self.context_length}")
        if not 0 <= min(ids) <= max(ids) < self.vocab_size:
            return InvalidValueError(f"a prompt id is outside the vocabulary of {self.vocab_size} tokens")
        return None

    def checked(self, ids: Seq[int]) -> npt.NDArray[np.int32]:
        """The `ids` of a text [T].

        Raises:
            ContextLengthError: they do not fit the context.
            InvalidValueError: one is no token.
        """
        if len(ids) > self.context_length:
            raise ContextLengthError(
                f"{len(ids)} tokens do not fit the context of {self.context_length}; "
                "cut them or load with a larger context_length"
            )
        try:
            array = np.array(ids, np.int64)
        except OverflowError:
            array = np.array([-1])  # an id of more than 64 bits is no token either
        if len(array) and not 0 <= array.min() <= array.max() < self.vocab_size:
            raise InvalidValueError(f"an id is outside the vocabulary of {self.vocab_size} tokens")
        return array.astype(np.int32)


S = TypeVar("S", bound=Slot)


class Admission(Generic[S]):
    """The way of sequences into `slots` and out of them: each step `release`, then `admit`.

    A sequence that cannot be computed, or no longer, gets its error and counts as one that runs until the next step:
    so core sees the error before the iterable is asked, and may block, again.
    """

    def __init__(self, sequences: Iterable[Sequence | None], slots: Seq[S], limits: Limits) -> None:
        self._waiting = Waiting(sequences)
        self._slots = slots
        self._limits = limits
        self._failed = 0

    def release(self) -> list[S]:
        """Free the slots of sequences that have ended, or that end here since their context is full → those slots."""
        freed, self._failed = [], 0
        for slot in self._slots:
            sequence = slot.sequence
            if sequence is None:
                continue
            if not ended(sequence) and slot.next is not None and slot.done >= self._limits.context_length:
                self._fail(sequence, ContextLengthError(f"the context of {self._limits.context_length} tokens is full"))
            if ended(sequence):
                slot.sequence = None
                freed.append(slot)
        return freed

    def admit(self) -> list[Sequence]:
        """Those that come, each of which must be given a free slot. Blocks where the iterable is live and none runs."""
        room = sum(slot.free for slot in self._slots) - self._failed
        admitted = []
        for sequence in self._waiting.take(room, busy=self.busy):
            fault = self._limits.fault(sequence)
            if fault is None:
                admitted.append(sequence)
            else:
                self._fail(sequence, fault)
        return admitted

    @property
    def busy(self) -> bool:
        """Whether there is a step to come: a sequence runs, or has failed, which core has to see."""
        return self._failed > 0 or any(slot.sequence is not None for slot in self._slots)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        sequence.error = error
        self._failed += 1
