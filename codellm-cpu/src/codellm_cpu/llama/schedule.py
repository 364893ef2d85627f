"""Many sequences on one context: slots refilled as sequences end, a shared prompt prefix computed once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from codellm.admission import Admission, Limits
from codellm.errors import BackendError
from codellm.sampler import Sampler
from codellm.sequence import Sequence, Token
from codellm.slots import Slot

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext

_WORTH_SHARING = 32
"""Tokens from which on a common prefix of two different prompts is worth waiting for and copying."""

_NOTHING = np.zeros(0, np.int32)


class ContextSlot(Slot):
    """One of llama.cpp's sequence ids, and which tokens its key-value cells hold.

    The cells outlive the sequence until the slot is taken again, so that a later sequence finds its prefix there.
    """

    def __init__(self, id: int) -> None:
        super().__init__(id)
        self.sampler: Sampler | None = None
        self.prompt: npt.NDArray[np.int32] = _NOTHING
        self.logits: npt.NDArray[np.float32] | None = None
        """Logits [V] after the prompt, kept for the other samples of it; None while the prompt is not done."""
        self.leader: ContextSlot | None = None
        """Who is computing the prefix that this slot waits for."""
        self.turn = 0
        """The number of its sequence in the order of their coming: so prompts are computed."""
        self.spoilt = False
        """Whether its cells may hold NaN: nobody takes it before they are wiped."""

    @property
    def free(self) -> bool:
        return super().free and not self.spoilt

    @property
    def reach(self) -> int:
        """Tokens of the prompt whose cells are there, or will be once its sequence has computed them."""
        return len(self.prompt) if self.sequence is not None else min(self.done, len(self.prompt))

    def holds(self, prompt: npt.NDArray[np.int32]) -> bool:
        """Whether exactly `prompt` was computed here, with its logits."""
        return self.logits is not None and np.array_equal(self.prompt, prompt)

    def forget(self) -> None:
        """Hold nothing any more: its cells are gone, and what was computed from them would claim that they are not."""
        self.prompt, self.logits, self.done, self.next, self.spoilt = _NOTHING, None, 0, None, False


class Scheduler:
    """Steps of one `run`: release finished slots, fill free ones, compute, sample.

    A step computes one token of every sequence that generates in one batch, then waiting prompts, first come first
    served, of at most a chunk of tokens all together: so long and no longer do those that generate wait. Each prompt is
    computed in batches of its own, cut at the same positions as it is alone: then its numbers are those it has alone,
    and nothing is lost, for llama.cpp reads the weights anew for rows of prompts beside rows of output.
    """

    def __init__(self, context: NativeContext, sequences: Iterable[Sequence | None], vocab_size: int) -> None:
        self._context = context
        self._slots = [ContextSlot(id) for id in range(context.shape.slots)]
        self._admission = Admission(sequences, self._slots, Limits(context.shape.context_length, vocab_size))
        self._turns = itertools.count()

    def steps(self) -> Iterator[list[Token]]:
        """Each step's tokens; an empty list where a step only computed prompt, or only refused sequences."""
        while self._refill():
            self._close_ranks()
            yield self._step()

    def _refill(self) -> bool:
        """Free slots and seat sequences; whether there is a step to come."""
        for slot in self._admission.release():
            slot.sampler = slot.leader = None
        self._wipe()
        for slot in self._slots:
            if slot.leader is not None and slot.leader.sequence is None:
                self._find_prefix(slot)
        for sequence in self._admission.admit():
            self._seat(sequence)
        return self._admission.busy

    def _wipe(self) -> None:
        """Leave no cell of those that computed NaN: without flash attention a NaN counts even where it is masked.

        llama.cpp zeroes all slots or none, so the cells of one that is known to be sound are written over theirs; a
        slot is not taken before.
        """
        spoilt = [slot for slot in self._slots if slot.spoilt]
        sound = next((slot for slot in self._slots if slot.logits is not None and not slot.spoilt), None)
        if sound is not None:
            for slot in spoilt:
                self._context.copy(sound.id, slot.id, 0)
                slot.forget()
        elif spoilt and all(slot.sequence is None for slot in self._slots):
            self._context.clear()
            for slot in self._slots:
                slot.forget()

    def _close_ranks(self) -> None:
        """Move sequences so that the ids of those that run follow each other.

        llama.cpp computes only sequences of consecutive ids together; at every gap it would read all weights again.
        """
        while True:
            running = [slot for slot in self._slots if slot.sequence is not None]
            if not running or running[-1].id - running[0].id < len(running):
                return
            last, gap = running[-1], next((slot for slot in self._free() if slot.id > running[0].id), None)
            # what moves leaves its cells behind, and whether they hold NaN is known once the prompt is done
            if gap is None or gap.id > last.id or (last.done and last.logits is None):
                return
            if last.done:
                self._context.copy(last.id, gap.id, last.done)
            else:
                self._context.trim(gap.id, 0)
            self._context.trim(last.id, 0)
            last.id, gap.id = gap.id, last.id
            gap.forget()
            self._slots.sort(key=lambda slot: slot.id)

    def _free(self) -> list[ContextSlot]:
        """Slots that can be taken."""
        return [slot for slot in self._slots if slot.free]

    def _seat(self, sequence: Sequence) -> None:
        prompt = np.array(sequence.prompt_ids, np.int32)
        # the cells of a free slot can be kept where they are; else take the first
        slot = max(self._free(), key=lambda slot: self._shared(slot, prompt))
        if slot.holds(prompt):
            kept = len(prompt)
        else:
            kept, slot.logits = min(self._shared(slot, prompt), len(prompt) - 1), None
        self._context.trim(slot.id, kept)
        slot.sequence, slot.sampler = sequence, Sampler(sequence)
        slot.prompt, slot.done, slot.next, slot.turn = prompt, kept, None, next(self._turns)
        self._find_prefix(slot)

    def _find_prefix(self, slot: ContextSlot) -> None:
        """Take over the longest prefix of the prompt that another slot holds, or wait for one that computes it.

        Of an equal prompt that is done the logits are taken too; else the last token is computed, for its logits.
        """
        slot.leader = None
        best, shared = slot, slot.done
        for other in self._slots:
            # never wait for one that waits itself: of those that share a prompt, the first computes it
            if other is not slot and other.leader is None and not other.spoilt:
                whole = len(slot.prompt) if other.holds(slot.prompt) or other.next is None else len(slot.prompt) - 1
                common = min(self._shared(other, slot.prompt), whole)
                if common > shared:
                    best, shared = other, common
        if best is slot:
            return
        if best.holds(slot.prompt):
            self._copy(best, slot, len(slot.prompt))
            slot.logits = best.logits
        elif best.sequence is not None and best.logits is None:
            slot.leader = best  # whole slots are copied: wait until it is known that no cell holds NaN
        else:
            self._copy(best, slot, min(shared, len(slot.prompt) - 1))

    def _shared(self, slot: ContextSlot, prompt: npt.NDArray[np.int32]) -> int:
        """Tokens of `prompt` that `slot` holds or will hold; 0 where too few to be worth it."""
        length = min(slot.reach, len(prompt))
        differ = slot.prompt[:length] != prompt[:length]
        common = int(differ.argmax()) if differ.any() else length
        return common if common >= min(_WORTH_SHARING, len(prompt)) else 0

    def _copy(self, source: ContextSlot, target: ContextSlot, length: int) -> None:
        if length > target.done:
            self._context.copy(source.id, target.id, length)
            target.done = length

    def _step(self) -> list[Token]:
        running = [slot for slot in self._slots if slot.sequence is not None]
        tokens: list[Token] = []
        self._decode([slot for slot in running if slot.next is not None], tokens)
        room = self._context.shape.chunk
        for slot in sorted(running, key=lambda slot: slot.turn):
            if slot.logits is None and slot.leader is None:
                stop = slot.piece(len(slot.prompt), self._context.shape.chunk)
                room -= stop - slot.done
                if room < 0:
                    break
                self._prefill(slot, stop)
        for slot in running:
            if slot.next is None and slot.logits is not None:
                self._sample(slot, slot.logits, tokens)
        return tokens

    def _decode(self, slots: list[ContextSlot], tokens: list[Token]) -> None:
        """One token of each slot that generates → its next."""
        if not slots:
            return
        context = self._context
        for row, slot in enumerate(slots):
            assert slot.next is not None
            context.tokens[row] = slot.next
            context.positions[row] = slot.done
            context.slots[row] = slot.id
            context.wanted[row] = 1
        logits = context.decode(len(slots))  # [slots, V]
        for row, slot in enumerate(slots):
            slot.done += 1
            self._sample(slot, logits[row], tokens)

    def _prefill(self, slot: ContextSlot, stop: int) -> None:
        """Compute a prompt up to `stop`. At its end, serve those who wait for it."""
        logits = self._context.prefill(slot.id, slot.prompt, slot.done, stop)
        slot.done = stop
        if stop == len(slot.prompt):
            slot.logits = logits.copy()
            slot.spoilt = not np.isfinite(logits.max())
            for follower in self._slots if not slot.spoilt else ():
                if follower.leader is slot:
                    self._find_prefix(follower)

    def _sample(self, slot: ContextSlot, logits: npt.NDArray[np.float32], tokens: list[Token]) -> None:
        assert slot.sampler is not None
        assert slot.sequence is not None
        try:
            token = slot.sampler(logits)
        except BackendError as error:  # logits that are not finite
            slot.sequence.error = error
            slot.spoilt = self._context.spoilt = True
            return
        slot.next = token.id
        tokens.append(token)
