"""One of an engine's slots, and which tokens its cells hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codellm.slots import Slot

if TYPE_CHECKING:
    import torch


class EngineSlot(Slot):
    """A slot of the engine, and the prompt whose cells are there.

    The cells outlive the sequence until the slot is taken again, so that an equal prompt finds them. `done` counts what
    was begun, and `next` is None as long as a token is unread.
    """

    def __init__(self, id: int) -> None:
        super().__init__(id)
        self.prompt: list[int] = []
        self.logits: torch.Tensor | None = None
        """Logits [V] after the prompt, kept for other samples of it; None while the prompt is not done."""
        self.unread = 0
        """Its tokens that were chosen and that nobody has read."""
        self.turn = -1
        """The number of its last sequence in the order of their coming: so prompts are computed, and prefixes go."""
        self.ids: list[int] = []
        """Where prefixes are kept, the tokens whose cells are there and known to hold no NaN; else none."""
        self.told: int | None = None
        """The last token that was read of its sequence: its cell is not known yet."""
        self.spoilt = False
        """Whether NaN was seen, after which `ids` no longer grow."""
        self._written = 0

    @property
    def written(self) -> int:
        """Tokens up to which cells may be written: by what went further here before, or by an idle step."""
        return max(self._written, self.done + 1)

    def begin(self, prompt: list[int], kept: int = 0, written: int = 0) -> None:
        """Hold the first `kept` tokens of `prompt`, to compute the rest; `written` is how far its cells once went."""
        self.prompt, self.ids, self.done, self._written = prompt, prompt[:kept], kept, written
        self.logits = self.told = self.next = None
        self.spoilt = False

    def see(self, ids: list[int], *, sound: bool) -> None:
        """Know of the next `ids` that their cells are there, or that NaN is among them."""
        self.spoilt |= not sound
        if not self.spoilt:
            self.ids.extend(ids)

    def leave(self) -> None:
        """Have no sequence any more; what was computed stays."""
        self.sequence = self.next = self.told = None

    def forget(self) -> None:
        """Hold nothing any more."""
        self.begin([])
        self.turn = -1

    @property
    def free(self) -> bool:
        return self.sequence is None and not self.unread

    @property
    def waits(self) -> bool:
        """Whether its prompt is not done."""
        return self.sequence is not None and self.sequence.error is None and self.logits is None

    @property
    def begins(self) -> bool:
        """Whether its prompt is done and its first token not chosen."""
        return self.sequence is not None and self.logits is not None and self.next is None and not self.unread

    def generates(self, context_length: int) -> bool:
        """Whether its newest token is to be computed: not ahead, where that is known to be the last."""
        if self.sequence is None or self.done >= context_length:
            return False
        if not self.unread:
            return self.next is not None
        return len(self.sequence.token_ids) + self.unread < self.sequence.params.max_tokens
