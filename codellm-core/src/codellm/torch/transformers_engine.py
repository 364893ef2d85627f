"""The engine on transformers' own models: the plain reference, with bitsandbytes' quantization where asked.

Its forward pass is transformers', untouched; the loop around it is ours. Keys and values lie in our cache, so that each
place counts its positions from zero and no prompt is padded, whatever runs beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence as Seq
from typing import Any

import torch
import transformers
from transformers.cache_utils import CacheLayerMixin

from codellm.torch.cache import Cache
from codellm.torch.engine import Engine

_SPAN = 64
"""Cells by which what a step looks at grows."""


class TransformersEngine(Engine):
    """Computes with `model`, a causal language model of transformers."""

    def __init__(self, model: Any, cache: Cache, *, vocabulary: int, context: int, chunk: int) -> None:
        super().__init__(cache, vocabulary=vocabulary, context=context, chunk=chunk)
        self.model = model
        taken = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in taken else "past_key_values"  # its name before transformers 5.20

    def prefill(self, place: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._chunk(place, ids, start, keep=1)[-1]

    def every(self, place: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._chunk(place, ids, start, keep=0)

    def _chunk(self, place: int, ids: Seq[int], start: int, keep: int) -> torch.Tensor:
        positions = torch.arange(start, start + len(ids), device=self.device)[None]  # [1, T]
        view = self.cache.view(place, place + 1, self.cache.span(start + len(ids), _SPAN))
        return self._forward(torch.tensor([ids], device=self.device), positions, view, keep)[0]

    def decode(self, ids: Seq[int], positions: Seq[int]) -> torch.Tensor:
        view = self.cache.view(0, self.places, self.cache.span(max(positions) + 1, _SPAN))
        tokens, places = torch.tensor([ids, positions], device=self.device)
        return self._forward(tokens[:, None], places[:, None], view, keep=1)[:, 0]

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor, view: Cache, keep: int) -> torch.Tensor:
        """`tokens` and `positions` [B, T] → logits of the last `keep` tokens, with 0 of all: float32 [B, keep, V]."""
        layers = [Cells(view, layer, view.slots(positions)) for layer in range(len(view.keys))]
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=view.mask(positions, view.keys[0].dtype),
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_argument: transformers.Cache(layers=layers)},
        ).logits
        return logits[..., : self.vocabulary].float()


class Cells(CacheLayerMixin):  # type: ignore[misc]
    """One layer of our cache, as transformers' attention writes and reads it."""

    is_sliding = False

    def __init__(self, view: Cache, layer: int, slots: torch.Tensor) -> None:
        super().__init__()
        self._keys, self._values = view.keys[layer], view.values[layer]  # [B, R, KV, D]
        self._slots = slots  # [B, T]
        self.is_initialized = True

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [B, KV, T, D] → all cells [B, KV, R, D]."""
        rows = torch.arange(len(self._slots), device=self._slots.device)[:, None]
        self._keys[rows, self._slots] = keys.transpose(1, 2).to(self._keys.dtype)
        self._values[rows, self._slots] = values.transpose(1, 2).to(self._values.dtype)
        return self._keys.transpose(1, 2).to(keys.dtype), self._values.transpose(1, 2).to(values.dtype)

    def lazy_initialization(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Nothing: the cells are there."""

    def get_seq_length(self) -> int:
        """Not asked for, since every call brings its positions and its mask."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Cells, and where they begin."""
        return self._keys.shape[1], 0

    def get_max_length(self) -> int:
        """Cells."""
        return self._keys.shape[1]
