"""The engine on transformers' own models: the plain reference, quantized where asked.

Its forward pass is transformers', untouched; the loop around it is ours. Keys and values lie in our cache, so that each
slot counts its positions from zero and no prompt is padded, whatever runs beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence as Seq
from typing import Any, ClassVar

import attrs
import torch
import transformers
from transformers.cache_utils import CacheLayerMixin

from codellm.torch.cache import Cache
from codellm.torch.device import upload
from codellm.torch.engine import Engine

_SPAN = 64
"""Cells by which what a step looks at grows."""


class TransformersEngine(Engine):
    """Computes with `model`, a causal language model of transformers, whose attention takes a mask."""

    joins: ClassVar[bool] = False
    """Whether the keys of a chunk join those before it ahead of the cache, which then needs no cells for them."""

    def __init__(self, model: Any, cache: Cache, *, vocab_size: int, context_length: int, chunk: int) -> None:
        super().__init__(cache, vocab_size=vocab_size, context_length=context_length, chunk=chunk)
        self.ahead = 0  # a step takes the host longer than the device: begun ahead, it would delay the tokens before it
        self.model = model
        self._flat = [[cells.flatten(0, 1) for cells in part] for part in (cache.keys, cache.values)]  # [P * R, KV, D]
        taken = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in taken else "past_key_values"  # its name before transformers 5.20

    @classmethod
    def implementation(cls, attention: str, device: torch.device, dtype: torch.dtype) -> str:
        """What transformers calls `attention`.

        Raises:
            BackendUnavailableError: it is not installed, or `device` is too old for it.
            InvalidValueError: it does not compute in `dtype`, or not on `device`.
        """
        return attention

    def prefill(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._chunk(slot, ids, start, keep=1)[-1]

    def all_position_logits(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._chunk(slot, ids, start, keep=0)

    def _chunk(self, slot: int, ids: Seq[int], start: int, keep: int) -> torch.Tensor:
        positions = torch.arange(start, start + len(ids), device=self.device)[None]  # [1, T]
        layers, kwargs = self.chunk_layers(slot, positions, start)
        return self._forward(upload([ids], self.device), positions, layers, kwargs, keep)[0]

    def decode(self, ids: torch.Tensor, positions: Seq[int]) -> torch.Tensor:
        at = upload(positions, self.device)[:, None]  # [P, 1]
        layers, kwargs = self.step_layers(at, max(positions) + 1)
        return self._forward(ids[:, None], at, layers, kwargs, keep=1)[:, 0]

    def chunk_layers(self, slot: int, positions: torch.Tensor, start: int) -> tuple[list[CacheLayer], dict[str, Any]]:
        """Cache layers for tokens of one slot at `positions` [1, T] from `start` on, and what attention is told."""
        return self._masked(slot, slot + 1, positions, start + positions.shape[1])

    def step_layers(self, positions: torch.Tensor, length: int) -> tuple[list[CacheLayer], dict[str, Any]]:
        """Cache layers as of `chunk_layers`, for a token of each slot at `positions` [P, 1] below `length`."""
        return self._masked(0, self.slots, positions, length)

    def _masked(
        self, begin: int, end: int, positions: torch.Tensor, length: int
    ) -> tuple[list[CacheLayer], dict[str, torch.Tensor]]:
        view = self.cache.view(begin, end, self.cache.span(length, _SPAN))
        layers = self.written(view, self.cells(begin, end, positions))
        return layers, {"attention_mask": view.mask(positions, view.keys[0].dtype)}

    def cells(self, begin: int, end: int, positions: torch.Tensor) -> torch.Tensor:
        """Where tokens of the slots from `begin` to `end` at `positions` [B, T] lie: numbers of cells [B * T]."""
        slots = torch.arange(begin, end, device=self.device)[:, None]
        return (slots * self.cache.ring + self.cache.cells(positions)).flatten()

    def written(self, view: Cache, cells: torch.Tensor) -> list[CacheLayer]:
        """Layers that write at `cells` and show `view`."""
        keys, values = (map(Part, *parts) for parts in zip(self._flat, (view.keys, view.values), strict=True))
        at = self.everywhere(cells)
        return [CellsLayer(key, value, at[key.flat.device]) for key, value in zip(keys, values, strict=True)]

    def everywhere(self, values: torch.Tensor) -> dict[torch.device, torch.Tensor]:
        """What every layer reads, on the device of each: transformers moves only what it knows."""
        return {device: values.to(device, non_blocking=True) for device in self.devices}

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, layers: list[CacheLayer], kwargs: dict[str, Any], keep: int
    ) -> torch.Tensor:
        """Compute `tokens` at `positions` [B, T] → logits of the last `keep`, with 0 of all: float32 [B, keep, V]."""
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_argument: transformers.Cache(layers=layers)},
            **kwargs,
        ).logits
        return logits[..., : self.vocab_size].float()


class CacheLayer(CacheLayerMixin):  # type: ignore[misc]
    """A layer of our cache for transformers, which only ever updates it: every call brings positions of its own."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True

    def lazy_initialization(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Do nothing: the cells are there."""

    def get_seq_length(self) -> int:
        """Length that no mask is made by: every call brings positions."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Sizes of a mask that is never made: one comes with the call, or none is needed."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Bound that transformers need not know: -1, none."""
        return -1


class CellsLayer(CacheLayer):
    """A layer that writes its tokens, then shows all that a slot holds."""

    def __init__(self, keys: Part, values: Part, cells: torch.Tensor) -> None:
        super().__init__()
        self._keys, self._values = keys, values
        self._cells = cells  # [B * T]

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [B, KV, T, D] → all cells [B, KV, R, D]."""
        return self._keys.write(self._cells, keys), self._values.write(self._cells, values)


@attrs.frozen(eq=False)
class Part:
    """The keys of a layer, or its values: all cells [P * R, KV, D], and what of them is shown [B, R, KV, D]."""

    flat: torch.Tensor
    shown: torch.Tensor

    def write(self, cells: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Write `new` [B, KV, T, D] at `cells` [B * T] → what is shown, [B, KV, R, D]."""
        self.flat.index_copy_(0, cells, new.transpose(1, 2).flatten(0, 1).to(self.flat.dtype))
        return self.shown.transpose(1, 2).to(new.dtype)
