"""What sequences leave in the cells of a context: nothing from one `run` to the next, or the prefixes of later ones."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from codellm.prefix_cache import WORTH_SHARING
from codellm_cpu.llama.slot import ContextSlot

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext


class Prefixes:
    """The slots in which sequences run, and those that only store what had to make room in them.

    With `keeps`, a slot holds what its last sequence left, prompt and output, until another takes it; then it moves to
    the store, in place of what was used least recently there. llama.cpp gives each id cells for a whole context, so the
    store holds a number of prefixes, however short.
    """

    def __init__(self, context: NativeContext) -> None:
        self.context = context
        shape = context.shape
        self.keeps = shape.stored is not None
        self.slots = [ContextSlot(id) for id in range(shape.slots)]
        self.stored = [ContextSlot(id) for id in range(shape.slots, shape.slots + (shape.stored or 0))]
        self.turns = itertools.count()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """The time of a `run`. After a fault, or where nothing is kept, no slot holds anything."""
        kept = False
        try:
            yield
            kept = self.keeps
        except GeneratorExit:  # whoever reads has enough, which is no fault
            kept = self.keeps
            raise
        finally:
            if kept:
                for slot in self.slots:
                    slot.leave()
                self.wipe()
            else:
                self.clear()

    def clear(self) -> None:
        """Hold nothing."""
        self.context.clear()
        for slot in (*self.slots, *self.stored):
            slot.leave()
            slot.forget()

    def wipe(self) -> None:
        """Leave no cell of those that computed NaN: without flash attention a NaN counts even where it is masked.

        llama.cpp zeroes all slots or none, so the cells of one that is known to be sound are written over theirs; a
        slot is not taken before.
        """
        spoilt = [slot for slot in self.slots if slot.spoilt]
        if not spoilt:
            return
        finished = [slot for slot in self.slots if slot.logits is not None and not slot.spoilt]
        sound = next(iter([*finished, *(slot for slot in self.stored if slot.done)]), None)
        if sound is not None:
            for slot in spoilt:
                if slot.sequence is None:
                    self.context.copy(sound.id, slot.id, 0)
                    slot.forget()
        elif all(slot.sequence is None for slot in self.slots):
            self.clear()

    def store(self, slot: ContextSlot, kept: int = 0, prompt: npt.NDArray[np.int32] | None = None) -> None:
        """Save what the free `slot` holds before all but `kept` tokens of it are overwritten, for `prompt`.

        Where most of it stays, it is a text that has been edited, and nobody will ask for how it was before: it is not
        saved, and in the store it gives way to what became of it. Else that does which was used least recently, but not
        what `prompt` is to begin with.
        """
        ids = slot.ids
        if len(ids) < WORTH_SHARING or 2 * kept >= len(ids) or slot.spoilt:
            return
        others = [other for other in (*self.slots, *self.stored) if other is not slot and not other.spoilt]
        if any(other.done >= len(ids) and other.shared(ids) == len(ids) for other in others):
            return
        shared = {each: each.shared(prompt) for each in self.stored} if prompt is not None else {}
        most = max(shared.values(), default=0)
        rooms = [each for each in self.stored if most <= kept or shared[each] < most]
        if rooms:
            target = min(rooms, key=lambda each: (-_followed(each, ids), each.turn))
            self.context.copy(slot.id, target.id, len(ids))
            target.prompt, target.done, target.turn = ids, len(ids), slot.turn


def _followed(stored: ContextSlot, ids: npt.NDArray[np.int32]) -> int:
    """Tokens of what is `stored` with which `ids` begin; 0 where they are not most of it: then it is another text."""
    shared = stored.shared(ids)
    return shared if 2 * shared > stored.done else 0
