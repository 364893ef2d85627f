"""The static key-value cache: a ring of cells for each slot, allocated once."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import attrs
import torch

from codellm.sources.architecture import Config


@attrs.define(eq=False, slots=False)
class Cache:
    """Keys and values of every layer: each [P, R, KV, D] for P slots of R cells.

    The token at position t lies in cell t mod R. Without a sliding window R is the context; with one, R is just enough
    for a chunk of a prompt and the window before it, however long the context.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    window: int
    """Tokens that a token attends to, itself among them."""
    ring: int
    """R, also where a view shows fewer cells."""

    @classmethod
    def allocate(
        cls,
        config: Config,
        *,
        slots: int,
        context_length: int,
        chunk: int,
        dtype: torch.dtype,
        device: torch.device | Seq[torch.device],
    ) -> Cache:
        """A cache for `slots` sequences of `context_length` tokens, whose prompts come in chunks of at most `chunk`.

        `device` is that of all layers, or of each.
        """
        ring = ring_size(config, context_length, chunk)
        shape = (slots, ring, config.num_key_value_heads, config.head_dim)
        devices = [device] * config.num_hidden_layers if isinstance(device, torch.device) else device
        keys, values = ([torch.zeros(shape, dtype=dtype, device=each) for each in devices] for _ in range(2))
        return cls(keys, values, config.sliding_window or context_length, ring)

    def view(self, begin: int, end: int, span: int) -> Cache:
        """The slots from `begin` to `end`, and of each the first `span` cells: the same memory."""
        keys, values = ([each[begin:end, :span] for each in part] for part in (self.keys, self.values))
        return Cache(keys, values, self.window, self.ring)

    def span(self, length: int, step: int) -> int:
        """Cells that hold the first `length` tokens, rounded up to a multiple of `step`."""
        return min(self.ring, -(-length // step) * step)

    def copy(self, source: int, target: int, length: int) -> None:
        """Give the slot `target` the first `length` tokens of the slot `source`."""
        count = min(length, self.ring)
        for part in (*self.keys, *self.values):
            part[target, :count] = part[source, :count]

    def save(self, slot: int, count: int) -> list[torch.Tensor]:
        """Copies of the first `count` cells of `slot`: of each part of each layer [count, KV, D]."""
        return [part[slot, :count].clone() for part in (*self.keys, *self.values)]

    def restore(self, saved: list[torch.Tensor], slot: int, count: int) -> None:
        """Give `slot` the first `count` cells of what was saved."""
        for part, cells in zip((*self.keys, *self.values), saved, strict=True):
            part[slot, :count] = cells[:count]

    def wipe(self, slot: int) -> None:
        """Set the cells of `slot` to zero."""
        for part in (*self.keys, *self.values):
            part[slot].zero_()

    def cells(self, positions: torch.Tensor) -> torch.Tensor:
        """The cells of tokens at `positions` [B, T]."""
        return positions % self.ring

    def mask(self, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What tokens at consecutive `positions` [B, T] may attend to, themselves among them: 0 or -inf [B, 1, T, R].

        Once they are written, cell j holds the last position that is j modulo R; those past are of an earlier sequence.
        """
        last = positions[:, -1:]  # [B, 1]
        cell = torch.arange(self.keys[0].shape[1], device=positions.device)  # [R]
        held = (last - (last - cell) % self.ring)[:, None]  # [B, 1, R]
        query = positions[:, :, None]  # [B, T, 1]
        seen = (held >= 0) & (held <= query) & (query - held < self.window)  # [B, T, R]
        zero = torch.zeros((), dtype=dtype, device=positions.device)
        return torch.where(seen, zero, zero - torch.inf)[:, None]


def ring_size(config: Config, context_length: int, chunk: int) -> int:
    """Cells that a slot needs: of the window, the oldest query of a chunk still sees all of its own."""
    return context_length if config.sliding_window is None else min(context_length, config.sliding_window + chunk - 1)


def join(ring: torch.Tensor, tokens: torch.Tensor, start: int) -> torch.Tensor:
    """Keep `tokens` [T, KV, D], at positions from `start` on, in the `ring` [R, KV, D] of a slot, or the last R.

    → What they may see, in order: the last of those before them, R - 1 at most, and them: [S, KV, D], where they lie in
    the ring like that a view of it. No host waits for a device here.
    """
    size, end = len(ring), start + len(tokens)
    if end <= size:
        ring[start:end] = tokens
        return ring[:end]
    seen = min(start, size - 1)
    begin = (start - seen) % size
    first = ring[begin : begin + seen]
    joined = torch.cat([first, ring[: seen - len(first)], tokens])  # before what is read is overwritten
    kept = tokens[-size:]
    cell = (end - len(kept)) % size
    straight = min(len(kept), size - cell)
    ring[cell : cell + straight] = kept[:straight]
    ring[: len(kept) - straight] = kept[straight:]
    return joined
