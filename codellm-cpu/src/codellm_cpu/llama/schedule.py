"""Many sequences on one context: slots refilled as sequences end, a shared prompt prefix computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from codellm.admission import Admission, Limits
from codellm.errors import BackendError
from codellm.sampler import Sampler
from codellm.sequence import Sequence, Token

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.prefixes import Prefixes
    from codellm_cpu.llama.slot import ContextSlot


class Scheduler:
    """Steps of one `run`: release finished slots, fill free ones, compute, sample.

    A step computes one token of every sequence that generates in one batch, then waiting prompts, first come first
    served, of at most a chunk of tokens all together: so long and no longer do those that generate wait. Each prompt is
    computed in batches of its own, cut at the same positions as it is alone: then its numbers are those it has alone,
    and nothing is lost, for llama.cpp reads the weights anew for rows of prompts beside rows of output.
    """

    def __init__(self, prefixes: Prefixes, sequences: Iterable[Sequence | None], vocab_size: int) -> None:
        self._prefixes = prefixes
        self._context = prefixes.context
        self._slots = prefixes.slots
        self._admission = Admission(sequences, self._slots, Limits(self._context.shape.context_length, vocab_size))

    def steps(self) -> Iterator[list[Token]]:
        """Each step's tokens; an empty list where a step only computed prompt, or only refused sequences."""
        while self._refill():
            self._close_ranks()
            yield self._step()

    def _refill(self) -> bool:
        """Free slots and seat sequences; whether there is a step to come."""
        for slot in self._admission.release():
            slot.leave()
        self._prefixes.wipe()
        for slot in self._slots:
            if slot.leader is not None and slot.leader.sequence is None:
                self._find_prefix(slot)
        for sequence in self._admission.admit():
            self._seat(sequence)
        return self._admission.busy

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
            self._prefixes.store(gap)
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
        # the cells of a free slot can be kept where they are; else take the first, or what was used least recently
        slot = max(self._free(), key=lambda slot: (slot.shared(prompt), -slot.turn * self._prefixes.keeps))
        whole = slot.holds(prompt)
        kept = len(prompt) if whole else min(slot.shared(prompt), len(prompt) - 1)
        self._prefixes.store(slot, kept, prompt)
        self._context.trim(slot.id, kept)
        slot.sequence, slot.sampler, slot.turn = sequence, Sampler(sequence), next(self._prefixes.turns)
        slot.prompt, slot.output, slot.done, slot.next = prompt, [], kept, None
        if not whole:
            slot.logits = None
        sequence.cached_tokens = kept
        self._find_prefix(slot)

    def _find_prefix(self, slot: ContextSlot) -> None:
        """Take over the longest prefix of the prompt that another slot holds, or wait for one that computes it.

        Of an equal prompt that is done the logits are taken too; else the last token is computed, for its logits.
        """
        slot.leader = None
        best, shared = slot, slot.done
        for other in (*self._slots, *self._prefixes.stored):
            # never wait for one that waits itself: of those that share a prompt, the first computes it
            if other is not slot and other.leader is None and not other.spoilt:
                whole = len(slot.prompt) if other.holds(slot.prompt) or other.next is None else len(slot.prompt) - 1
                common = min(other.shared(slot.prompt), whole)
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

    def _copy(self, source: ContextSlot, target: ContextSlot, length: int) -> None:
        if length > target.done:
            assert target.sequence is not None
            self._context.copy(source.id, target.id, length)
            target.done = target.sequence.cached_tokens = length
            if source.sequence is None:
                source.turn = target.turn

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
            if self._prefixes.keeps and slot.next is not None:
                slot.output.append(slot.next)
            self._sample(slot, logits[row], tokens)

    def _prefill(self, slot: ContextSlot, stop: int) -> None:
        """Compute a prompt up to `stop`. At its end, serve those who wait for it."""
        ends = stop == len(slot.prompt)
        looks = ends or self._prefixes.keeps  # what may be kept of a prompt that is broken off must be sound too
        logits = self._context.prefill(slot.id, slot.prompt, slot.done, stop, wanted=looks)
        slot.done = stop
        if looks:
            slot.spoilt = not np.isfinite(logits.max())
            self._context.spoilt |= slot.spoilt
        if ends:
            slot.logits = logits.copy()
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
