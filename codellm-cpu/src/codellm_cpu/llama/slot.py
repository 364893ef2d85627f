"""One of llama.cpp's sequence ids, and which tokens its cells hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codellm.prefix_cache import WORTH_SHARING
from codellm.slots import Slot

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm.sampler import Sampler

_NOTHING = np.zeros(0, np.int32)


class ContextSlot(Slot):
    """One of llama.cpp's sequence ids, and which tokens its key-value cells hold.

    The cells outlive the sequence until the slot is taken again, so that a later sequence finds its prefix there.
    """

    def __init__(self, id: int) -> None:
        super().__init__(id)
        self.sampler: Sampler | None = None
        self.prompt: npt.NDArray[np.int32] = _NOTHING
        self.output: list[int] = []
        """Ids computed after the prompt, where the cells of output are kept; else none."""
        self.logits: npt.NDArray[np.float32] | None = None
        """Logits [V] after the prompt, kept for the other samples of it; None while the prompt is not done."""
        self.leader: ContextSlot | None = None
        """Who is computing the prefix that this slot waits for."""
        self.turn = -1
        """The number of its last sequence in the order of their coming: so prompts are computed, and prefixes go."""
        self.spoilt = False
        """Whether its cells may hold NaN: nobody takes it before they are wiped."""

    @property
    def free(self) -> bool:
        return super().free and not self.spoilt

    @property
    def reach(self) -> int:
        """Tokens known by their ids whose cells are there, or will be once its sequence has computed the prompt."""
        known = len(self.prompt) + len(self.output)
        return known if self.sequence is not None else min(self.done, known)

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        """The ids of those tokens [reach]."""
        return np.concatenate([self.prompt, np.array(self.output, np.int32)])[: self.reach]

    def holds(self, prompt: npt.NDArray[np.int32]) -> bool:
        """Whether exactly `prompt` was computed here, with its logits."""
        return self.logits is not None and np.array_equal(self.prompt, prompt)

    def shared(self, prompt: npt.NDArray[np.int32]) -> int:
        """Tokens of `prompt` that it holds or will hold; 0 where too few to be worth it."""
        length = min(self.reach, len(prompt))
        differ = self.ids[:length] != prompt[:length]
        common = int(differ.argmax()) if differ.any() else length
        return common if common >= min(WORTH_SHARING, len(prompt)) else 0

    def leave(self) -> None:
        """Have no sequence any more; what was computed stays."""
        self.sequence = self.sampler = self.leader = self.next = None

    def forget(self) -> None:
        """Hold nothing any more: its cells are gone, and what was computed from them would claim that they are not."""
        self.prompt, self.output, self.logits, self.done, self.next = _NOTHING, [], None, 0, None
        self.spoilt, self.turn = False, -1
