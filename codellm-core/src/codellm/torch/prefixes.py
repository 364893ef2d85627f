"""What sequences leave in the cells of an engine: nothing from one `run` to the next, or the prefixes of later ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import torch

from codellm.prefix_cache import WORTH_SHARING
from codellm.torch.slot import EngineSlot

if TYPE_CHECKING:
    from codellm.torch.engine import Engine


@attrs.define(eq=False)
class Stored:
    """What had to make room in a slot: the tokens, and a copy of their cells; `written` is as the slot had it."""

    ids: list[int]
    cells: list[torch.Tensor]
    written: int
    turn: int
    """That of the last sequence that used it: the least recent goes first."""

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.cells)


class Prefixes:
    """The slots in which sequences run, and copies of what had to make room in them, of `capacity` bytes at most.

    With a capacity, 0 too, a slot holds what its last sequence left, prompt and output, until another takes it; then
    that is stored. Without one (None) only an equal prompt is found, and by nobody after the `run`.
    """

    def __init__(self, engine: Engine, capacity: int | None = None) -> None:
        self.keeps = capacity is not None
        self.slots = [EngineSlot(id) for id in range(engine.slots)]
        self._engine = engine
        self._capacity = capacity or 0
        self._stored: list[Stored] = []
        self._turns = itertools.count()

    def holds(self, slot: EngineSlot, prompt: list[int]) -> bool:
        """Whether all cells of `prompt`, and the logits after it, are in `slot`."""
        done = slot.logits is not None and slot.prompt == prompt
        return done and not slot.spoilt and slot.written <= self._engine.kept

    def take(self, prompt: list[int]) -> EngineSlot:
        """Give `prompt` a free slot, in which as much of it is done as is kept anywhere."""
        free = [slot for slot in self.slots if slot.free]
        # one that holds the prompt already needs no copy; else spare those that hold something
        slot = next((slot for slot in free if self.holds(slot, prompt)), None)
        if slot is not None:
            slot.ids, slot.done = list(prompt) if self.keeps else [], len(prompt)
        else:
            slot = self._begin(prompt, free)
        slot.turn = next(self._turns)
        return slot

    def _begin(self, prompt: list[int], free: list[EngineSlot]) -> EngineSlot:
        source, length = self._longest(prompt, self._all())
        if isinstance(source, EngineSlot) and source.free and 2 * length >= len(source.ids):
            # a text that has been edited, or goes on: nobody will ask for how it was before
            source.begin(prompt, length, source.written)
            return source
        slot = min(free, key=lambda slot: (slot.logits is not None or slot.ids != [], slot.turn * self.keeps))
        if source is slot:
            self.vacate(slot)
            slot.begin(prompt, length, slot.written)
            return slot
        if isinstance(source, Stored) and 2 * length >= len(source.ids):
            self._stored.remove(source)  # it moves
        self.vacate(slot)
        slot.begin(prompt)
        if source is not None:
            self._copy(source, slot, length)
        return slot

    def lengthen(self, slot: EngineSlot) -> None:
        """Take over what another slot has computed meanwhile of the prompt that `slot` begins with."""
        source, length = self._longest(slot.prompt, [other for other in self.slots if other is not slot])
        if source is not None and length >= slot.done + WORTH_SHARING:
            self._copy(source, slot, length)

    def copy_whole(self, source: EngineSlot, target: EngineSlot) -> None:
        """Give `target`, whose prompt `source` holds, its cells and the logits after it."""
        self._engine.copy(source.id, target.id, len(target.prompt))
        target.begin(target.prompt, len(target.prompt))
        target.logits = source.logits

    def ahead(self, other: EngineSlot, slot: EngineSlot) -> bool:
        """Whether `other` is to compute what the prompt of `slot` needs too, and came first: then `slot` waits.

        The first to come waits for nobody.
        """
        if not other.waits or other.turn >= slot.turn:
            return False
        if not self.keeps:
            return other.prompt == slot.prompt
        length = common(other.prompt, slot.prompt)
        return other.done < length and (length == len(slot.prompt) or length >= slot.done + WORTH_SHARING)

    def vacate(self, slot: EngineSlot) -> None:
        """Store what the free `slot` holds before it is overwritten, unless it lies elsewhere too or nothing is kept.

        What was used less recently gives way.
        """
        ids, count = slot.ids, self._cells(slot, len(slot.ids))
        others = [other.ids for other in self._all() if other is not slot]
        if (
            not self.keeps
            or len(ids) < WORTH_SHARING
            or slot.spoilt
            or any(common(ids, other) == len(ids) for other in others)
        ):
            return
        self._stored = [one for one in self._stored if common(one.ids, ids) < len(one.ids)]  # it goes on here
        older = sorted((one for one in self._stored if one.turn < slot.turn), key=lambda one: one.turn)
        size, spare = count * self._engine.cell_bytes, self._capacity - sum(one.nbytes for one in self._stored)
        while spare < size and older:
            spare += older[0].nbytes
            self._stored.remove(older.pop(0))
        if size <= spare:
            try:
                cells = self._engine.save(slot.id, count)
            except torch.OutOfMemoryError:  # others have taken what was free: what runs needs the rest
                self._stored.clear()
                return
            self._stored.append(Stored(ids, cells, slot.written, slot.turn))

    def clear(self) -> None:
        """Hold nothing, and see that what is in the slots is no NaN."""
        self._stored.clear()
        for slot in self.slots:
            if slot.done:
                self._engine.wipe(slot.id)
            slot.forget()

    def _all(self) -> list[EngineSlot | Stored]:
        return [*self.slots, *self._stored]

    def _longest(
        self, prompt: list[int], sources: Iterable[EngineSlot | Stored]
    ) -> tuple[EngineSlot | Stored | None, int]:
        """The longest beginning of `prompt` that one of `sources` holds, all but its last token: that gives logits."""
        best: EngineSlot | Stored | None = None
        most = WORTH_SHARING - 1
        for source in sources if self.keeps else ():
            length = min(common(source.ids, prompt), len(prompt) - 1)
            if length > most and self._sound(source, length):
                best, most = source, length
        return best, most if best is not None else 0

    def _sound(self, source: EngineSlot | Stored, length: int) -> bool:
        """Whether a sequence can go on in the cells of `source` after `length` tokens."""
        if not self._engine.resumes(source.written, length):
            return False
        if isinstance(source, Stored):
            return True
        # past its ring all cells are taken, so all must be known
        return not source.spoilt and (source.written <= self._engine.kept or not source.unread)

    def _copy(self, source: EngineSlot | Stored, target: EngineSlot, length: int) -> None:
        """Give `target` the first `length` tokens of its prompt, which `source` holds."""
        count = self._cells(source, length)
        if isinstance(source, Stored):
            self._engine.restore(source.cells, target.id, count)
        else:
            self._engine.copy(source.id, target.id, count)
        target.begin(target.prompt, length, source.written if source.written > self._engine.kept else 0)
        if isinstance(source, Stored) or source.free:
            source.turn = next(self._turns)

    def _cells(self, source: EngineSlot | Stored, length: int) -> int:
        """Cells that `length` tokens of `source` lie in: all, where its ring has come round."""
        return length if source.written <= self._engine.kept else self._engine.kept


def common(first: list[int], second: list[int]) -> int:
    """Tokens with which both begin."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
