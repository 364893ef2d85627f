"""A way to compute: the contract between what runs sequences and what multiplies matrices."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Sequence as Seq
from typing import ClassVar

import torch

from codellm.torch.cache import Cache


class Engine(abc.ABC):
    """Computes tokens of the sequences in its slots and keeps their keys and values.

    A slot is P's index; its sequence's tokens lie at positions 0, 1, … without padding, whatever the others have. A
    position may be computed again; those after it are forgotten.
    """

    skips_idle: ClassVar[bool] = False
    """Whether `decode` takes the position -1 of a slot that has no token, and computes nothing for it."""
    likeliest: tuple[torch.Tensor, torch.Tensor] | None = None
    """What the last `decode` has already found where it finds it: of each slot the id of the greatest logit, the lowest
    of equals, int64 [P], and that id's log-probability, float32 [P], NaN where a logit is NaN or infinite. Both last
    until the next `decode`."""

    def __init__(self, cache: Cache, *, vocab_size: int, context_length: int, chunk: int) -> None:
        self.cache = cache
        self.slots = len(cache.keys[0])
        self.devices = tuple(dict.fromkeys(keys.device for keys in cache.keys))
        """Where the layers lie, each device once."""
        self.device = self.devices[0]
        """Where ids are taken and logits given."""
        self.vocab_size = vocab_size
        """Ids, and logits of a row: V."""
        self.context_length = context_length
        """Tokens that a slot holds."""
        self.chunk = chunk
        """The most tokens of one `prefill` or `all_position_logits`."""
        self.ahead = 0 if self.device.type == "cpu" else 1
        """Steps that are begun before the tokens of one are read: with 1 a device always has its next step at hand."""

    @abc.abstractmethod
    def prefill(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        """Compute `ids` at the positions from `start` on → logits after the last: float32 [V], which are kept."""

    @abc.abstractmethod
    def decode(self, ids: torch.Tensor, positions: Seq[int]) -> torch.Tensor:
        """Compute one token of each slot, ids [P] at positions [P] → logits after each: float32 [P, V].

        The ids are int64 on the engine's device, where they may be those of `likeliest`: no engine reads them back. The
        logits are the caller's to change, and last until the next step.
        """

    @abc.abstractmethod
    def all_position_logits(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        """Compute what `prefill` does → logits after each of the ids: float32 [T, V]."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Give the slot `target` the first `length` tokens of `source`, which has not gone past `kept` tokens."""
        self.cache.copy(source, target, length)

    def save(self, slot: int, count: int) -> list[torch.Tensor]:
        """Copies of the first `count` cells of `slot`, for `restore`."""
        return self.cache.save(slot, count)

    def restore(self, saved: list[torch.Tensor], slot: int, count: int) -> None:
        """Give `slot` the first `count` cells of what was saved."""
        self.cache.restore(saved, slot, count)

    def resumes(self, written: int, length: int) -> bool:
        """Whether a slot that has gone up to `written` tokens can go on after its first `length`.

        In a ring that has come round, what the next token attends to must not be overwritten, and what came after it
        must lie where it takes what it finds for tokens too old to attend to.
        """
        ring, window = self.cache.ring, self.cache.window
        return ring >= self.context_length or written <= ring or written - length <= ring - window + 1

    def wipe(self, slot: int) -> None:
        """Forget what NaN was computed at `slot`: it would count even where it is masked, since 0 * NaN is NaN."""
        self.cache.wipe(slot)

    @property
    def cell_bytes(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return sum(part[0, 0].nbytes for part in (*self.cache.keys, *self.cache.values))

    @property
    def kept(self) -> int:
        """Tokens up to which a slot still holds its first ones: a sliding window forgets them later."""
        return self.cache.ring

    def mode(self) -> contextlib.AbstractContextManager[object]:
        """Context in which everything is computed: without what training would need."""
        return torch.inference_mode()

    def close(self) -> None:
        """Free everything; the engine is not used after it."""
        vars(self).clear()
