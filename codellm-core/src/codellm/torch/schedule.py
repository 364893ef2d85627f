"""Many sequences on one engine: slots refilled as sequences end, an equal prompt computed once.

Where the engine asks for it, a step is begun with the tokens of the one before while nobody has read those yet: so a
device need not wait for a host that reads, tells, and begins the next step. What it computed for a sequence that turns
out to have ended is dropped when it is read, and until then nobody takes the slot.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

import attrs
import torch

from codellm.admission import Admission, Limits
from codellm.errors import BackendError
from codellm.sequence import Sequence, Token
from codellm.slots import ended
from codellm.torch.device import upload
from codellm.torch.engine import Engine
from codellm.torch.prefixes import Prefixes
from codellm.torch.readback import Readback
from codellm.torch.sampling import BatchSampler
from codellm.torch.slot import EngineSlot

_ON_DEVICE = -1
"""In the place of an id that only the device knows."""


@attrs.frozen(eq=False)
class Chosen:
    """A token of each of some slots, for the sequence that had it when it was chosen."""

    slots: list[tuple[EngineSlot, Sequence]]
    readback: Readback


class Scheduler:
    """Steps of one `run`: take sequences, compute one token of each that generates, then waiting prompts, choose.

    A step computes at most a chunk of prompts, so that it never keeps those that generate waiting longer than that.
    `prefixes` are what earlier runs have left.
    """

    def __init__(self, engine: Engine, sequences: Iterable[Sequence | None], prefixes: Prefixes | None = None) -> None:
        self._engine = engine
        self._prefixes = prefixes or Prefixes(engine)
        self._slots = self._prefixes.slots
        self._admission = Admission(sequences, self._slots, Limits(engine.context_length, engine.vocab_size))
        self._sampler = BatchSampler(engine.slots, engine.vocab_size, engine.device)
        self._readbacks = [Readback(engine.slots, engine.device) for _ in range(engine.ahead + 1)]
        self._unread: deque[Chosen] = deque()
        self._ids = torch.zeros(engine.slots, dtype=torch.long, device=engine.device)
        """Ids [P] as chosen by the last step."""
        self._known: tuple[list[int], torch.Tensor] | None = None

    def steps(self) -> Iterator[list[Token]]:
        """Each step's tokens; an empty list where what was read, or begun, is none.

        A caller that leaves before the end calls `drain`.
        """
        while self._refill() or self._unread:
            try:
                chose = self._begin()
            except Exception:
                while self._unread:  # what was computed before is told
                    yield self._read()
                raise
            yield self._read() if len(self._unread) > (self._engine.ahead if chose else 0) else []

    def drain(self) -> None:
        """Read what is unread for nobody, and leave no NaN in the cells of what was broken off."""
        while self._unread:
            self._read()
        for slot in self._slots:
            self._break_off(slot)
            slot.leave()

    def _refill(self) -> bool:
        """Free slots and take sequences; whether there is a step to come."""
        for slot in self._admission.release():
            self._break_off(slot)
            slot.next = None
            self._sampler.leave(slot.id)
        for sequence in self._admission.admit():
            self._take(sequence)
        return self._admission.busy

    def _break_off(self, slot: EngineSlot) -> None:
        """Forget what may hold NaN: a prompt that is not done and that nobody has looked at, or was seen to hold it."""
        if slot.spoilt or (slot.done and slot.logits is None and not self._prefixes.keeps):
            self._engine.wipe(slot.id)
            slot.forget()

    def _take(self, sequence: Sequence) -> None:
        slot = self._prefixes.take(list(sequence.prompt_ids))
        slot.sequence, slot.next, slot.told = sequence, None, None
        sequence.cached_tokens = slot.done
        self._sampler.seat(slot.id, sequence)

    def _begin(self) -> bool:
        """Begin a step; whether it chooses a token."""
        generating = [slot for slot in self._slots if slot.generates(self._engine.context_length)]
        logits, greedy = (self._decode(generating), self._engine.likeliest) if generating else (None, None)
        self._prefill()
        beginning = [slot for slot in self._slots if slot.begins]
        if beginning:
            logits, greedy = self._joined(logits, beginning), None
        if logits is not None:
            self._choose(logits, [*generating, *beginning], greedy)
        return logits is not None

    def _decode(self, generating: list[EngineSlot]) -> torch.Tensor:
        """One token of each slot that generates → logits [P, V]; the other slots compute along for nothing."""
        busy = {slot.id for slot in generating}
        positions = [slot.done if slot.id in busy else self._idle(slot)[1] for slot in self._slots]
        logits = self._engine.decode(self._next_ids(generating), positions)
        for slot in generating:
            slot.done += 1
        return logits

    def _idle(self, slot: EngineSlot) -> tuple[int, int]:
        """The id and the position that a slot without a token computes along."""
        if self._engine.skips_idle:
            return 0, -1
        if slot.ids and slot.written <= self._engine.kept:
            return slot.ids[0], 0  # what lies there already: where it would go on, all would look at as many cells
        # where it would go on: what is written there is overwritten before it is read
        return 0, min(slot.done, self._engine.context_length - 1)

    def _next_ids(self, generating: list[EngineSlot]) -> torch.Tensor:
        """The ids [P] to compute: of a slot whose token is unread what the last step chose."""
        known = [self._idle(slot)[0] for slot in self._slots]  # and not their last: that may end in NaN
        for slot in generating:
            known[slot.id] = _ON_DEVICE if slot.next is None else slot.next
        if _ON_DEVICE not in known:
            return upload(known, self._engine.device)
        if known.count(_ON_DEVICE) == len(known):
            return self._ids
        if self._known is None or self._known[0] != known:
            self._known = known, upload(known, self._engine.device)
        ids = self._known[1]
        return torch.where(ids == _ON_DEVICE, self._ids, ids)

    def _prefill(self) -> None:
        """Go on with the prompts that are not done, first come first served, up to a chunk in all."""
        room = self._engine.chunk
        waiting = sorted((slot for slot in self._slots if slot.waits), key=lambda slot: slot.turn)
        for slot in waiting:
            self._share(slot)
            if slot.waits and room > 0 and not any(self._prefixes.ahead(other, slot) for other in waiting):
                room -= self._chunk(slot)

    def _share(self, slot: EngineSlot) -> None:
        """Take what other slots have computed meanwhile of a prompt that is not done."""
        assert slot.sequence is not None
        before = slot.done
        donor = next((other for other in self._slots if self._prefixes.holds(other, slot.prompt)), None)
        if donor is not None:
            self._prefixes.copy_whole(donor, slot)
        else:
            self._prefixes.lengthen(slot)
        if slot.done > before:
            slot.sequence.cached_tokens = slot.done

    def _chunk(self, slot: EngineSlot) -> int:
        """The next chunk of a prompt, cut where it is cut alone → its tokens."""
        start, slot.done = slot.done, slot.piece(len(slot.prompt), self._engine.chunk)
        ids = slot.prompt[start : slot.done]
        logits = self._engine.prefill(slot.id, ids, start)
        if self._prefixes.keeps:
            slot.see(ids, sound=bool(torch.isfinite(logits.max())))
        if slot.done == len(slot.prompt):
            slot.logits = logits
        return slot.done - start

    def _joined(self, logits: torch.Tensor | None, beginning: list[EngineSlot]) -> torch.Tensor:
        """The step's `logits` [P, V], if there are any, with those after the prompts that are done."""
        for slot in beginning:
            assert slot.logits is not None
            if logits is None:
                logits = slot.logits.new_zeros((len(self._slots), len(slot.logits)))
            logits[slot.id] = slot.logits
        assert logits is not None
        return logits

    def _choose(
        self, logits: torch.Tensor, slots: list[EngineSlot], greedy: tuple[torch.Tensor, torch.Tensor] | None
    ) -> None:
        self._ids, logprobs = self._sampler.choose(logits, [slot.id for slot in slots], greedy)
        top = self._sampler.likeliest(logits)
        chosen = []
        for slot in slots:
            assert slot.sequence is not None
            slot.next = None
            slot.unread += 1
            chosen.append((slot, slot.sequence))
        self._unread.append(Chosen(chosen, self._readbacks.pop().begin(self._ids, logprobs, top)))

    def _read(self) -> list[Token]:
        """The tokens of the step that was begun first, but for those of sequences that have ended meanwhile."""
        step = self._unread.popleft()
        ids, logprobs = step.readback.read()
        self._readbacks.append(step.readback)
        tokens = []
        for slot, sequence in step.slots:
            slot.unread -= 1
            id, logprob = ids[slot.id], logprobs[slot.id]
            if not math.isfinite(logprob):
                self._fail(slot, sequence)
            elif not ended(sequence):
                if self._prefixes.keeps and slot.told is not None:
                    slot.see([slot.told], sound=True)
                slot.told, slot.next = id, None if slot.unread else id
                asked = sequence.params.logprobs
                top = None if asked is None else step.readback.top(slot.id, asked)
                tokens.append(Token(id, sequence, logprob, top))
        return tokens

    def _fail(self, slot: EngineSlot, sequence: Sequence) -> None:
        """Give up a sequence, which may have ended before its logits were seen; its cells are spoilt in any case."""
        if not ended(sequence):
            sequence.error = BackendError(
                "the model computed NaN or infinity as a logit: its weights or its file are broken"
            )
        self._engine.wipe(slot.id)
        slot.forget()
