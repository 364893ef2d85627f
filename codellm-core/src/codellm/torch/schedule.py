"""Many sequences on one engine: slots refilled as sequences end, an equal prompt computed once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from codellm.admission import Admission, Limits
from codellm.errors import BackendError
from codellm.sequence import Sequence, Token
from codellm.slots import Slot
from codellm.torch.device import upload
from codellm.torch.engine import Engine
from codellm.torch.sampling import BatchSampler

if TYPE_CHECKING:
    import torch


class EngineSlot(Slot):
    """A slot of the engine, and the prompt whose cells are there.

    The cells outlive the sequence until the slot is taken again, so that an equal prompt finds them.
    """

    def __init__(self, id: int) -> None:
        super().__init__(id)
        self.prompt: list[int] = []
        self.logits: torch.Tensor | None = None
        """Logits [V] after the prompt, kept for other samples of it; None while the prompt is not done."""

    def forget(self) -> None:
        """Hold nothing any more."""
        self.prompt, self.done, self.next, self.logits = [], 0, None, None

    @property
    def waits(self) -> bool:
        """Whether its prompt is not done."""
        return self.sequence is not None and self.sequence.error is None and self.logits is None

    def begun(self, prompt: list[int]) -> bool:
        """Whether it is computing `prompt`."""
        return self.waits and self.done > 0 and self.prompt == prompt


class Scheduler:
    """Steps of one `run`: take sequences, compute one token of each that generates, then waiting prompts, sample.

    A step computes at most a chunk of prompts, so that it never keeps those that generate waiting longer than that.
    """

    def __init__(self, engine: Engine, sequences: Iterable[Sequence | None]) -> None:
        self._engine = engine
        self._slots = [EngineSlot(id) for id in range(engine.slots)]
        self._admission = Admission(sequences, self._slots, Limits(engine.context_length, engine.vocab_size))
        self._sampler = BatchSampler(engine.slots, engine.vocab_size, engine.device)

    def steps(self) -> Iterator[list[Token]]:
        """Each step's tokens; an empty list where a step only computed prompt, or only refused sequences."""
        while self._refill():
            yield self._step()

    def _refill(self) -> bool:
        """Free slots and take sequences; whether there is a step to come."""
        for slot in self._admission.release():
            slot.next = None
            self._sampler.leave(slot.id)
        for sequence in self._admission.admit():
            self._take(sequence)
        return self._admission.busy

    def _take(self, sequence: Sequence) -> None:
        free = [slot for slot in self._slots if slot.free]
        # one that holds the prompt already needs no copy; else spare those that hold one
        slot = next((slot for slot in free if self._holds(slot, sequence.prompt_ids)), None)
        if slot is None:
            slot = min(free, key=lambda slot: slot.logits is not None)
            slot.prompt, slot.logits, slot.done = list(sequence.prompt_ids), None, 0
        else:
            slot.done = len(slot.prompt)
        slot.sequence, slot.next = sequence, None
        self._sampler.seat(slot.id, sequence)

    def _holds(self, slot: EngineSlot, prompt: list[int]) -> bool:
        """Whether all cells of `prompt`, and the logits after it, are in `slot`."""
        return slot.logits is not None and slot.prompt == prompt and slot.done < self._engine.kept

    def _step(self) -> list[Token]:
        logits = self._decode()
        ready = [slot for slot in self._slots if slot.next is not None]
        self._prefill()
        for slot in self._slots:
            if slot.sequence is not None and slot.next is None and slot.logits is not None:
                if logits is None:
                    logits = slot.logits.new_zeros((len(self._slots), len(slot.logits)))
                logits[slot.id] = slot.logits
                ready.append(slot)
        return [] if logits is None else self._sample(logits, ready)

    def _decode(self) -> torch.Tensor | None:
        """One token of each slot that generates → logits [P, V]; the other slots compute along for nothing."""
        if all(slot.next is None for slot in self._slots):
            return None
        ids = [slot.next or 0 for slot in self._slots]
        # where a slot would go on: what idle ones write there is overwritten before it is read
        positions = [min(slot.done, self._engine.context_length - 1) for slot in self._slots]
        logits = self._engine.decode(upload(ids, self._engine.device), positions)
        for slot in self._slots:
            slot.done += slot.next is not None
        return logits

    def _prefill(self) -> None:
        """Go on with the prompts that are not done, those begun first, up to a chunk in all."""
        room = self._engine.chunk
        waiting = [slot for slot in self._slots if slot.waits]
        for slot in sorted(waiting, key=lambda slot: -slot.done):
            donor = next((other for other in self._slots if self._holds(other, slot.prompt)), None)
            if donor is not None:
                self._engine.copy(donor.id, slot.id, len(slot.prompt))
                slot.logits, slot.done = donor.logits, len(slot.prompt)
            elif room > 0 and not any(other is not slot and other.begun(slot.prompt) for other in waiting):
                room -= self._chunk(slot)

    def _chunk(self, slot: EngineSlot) -> int:
        """The next chunk of a prompt, cut where it is cut alone → its tokens."""
        start, slot.done = slot.done, slot.piece(len(slot.prompt), self._engine.chunk)
        logits = self._engine.prefill(slot.id, slot.prompt[start : slot.done], start)
        if slot.done == len(slot.prompt):
            slot.logits = logits
        return slot.done - start

    def _sample(self, logits: torch.Tensor, ready: list[EngineSlot]) -> list[Token]:
        tokens = []
        chosen, logprobs = self._sampler(logits, [slot.id for slot in ready])
        for slot, id, logprob in zip(ready, chosen, logprobs, strict=True):
            assert slot.sequence is not None
            if math.isfinite(logprob):
                slot.next = id
                tokens.append(Token(id, slot.sequence, logprob))
            else:
                slot.sequence.error = BackendError(
                    "the model computed NaN or infinity as a logit: its weights or its file are broken"
                )
                self._engine.wipe(slot.id)
                slot.forget()
        return tokens
