"""The engine on our own decoder."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

import torch

from codellm.torch.cache import Cache
from codellm.torch.decoder import Decoder
from codellm.torch.device import upload
from codellm.torch.engine import Engine
from codellm.torch.steps import SPAN, Step


class DecoderEngine(Engine):
    """Computes with `decoder`; `step` decodes instead of it where it was traced or compiled, and `forget` frees it."""

    def __init__(
        self,
        decoder: Decoder,
        cache: Cache,
        *,
        vocab_size: int,
        context_length: int,
        chunk: int,
        step: Step | None = None,
        forget: Callable[[Decoder, Cache], None] | None = None,
    ) -> None:
        super().__init__(cache, vocab_size=vocab_size, context_length=context_length, chunk=chunk)
        self.decoder = decoder
        self._step = step or decoder.decode
        self._forget = forget

    def prefill(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self.decoder.prefill(*self._chunk(slot, ids, start))[0, : self.vocab_size]

    def all_position_logits(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self.decoder.all_position_logits(*self._chunk(slot, ids, start))[0, :, : self.vocab_size]

    def _chunk(self, slot: int, ids: Seq[int], start: int) -> tuple[torch.Tensor, torch.Tensor, Cache]:
        tokens = upload([ids], self.device)  # [1, T]
        positions = torch.arange(start, start + len(ids), device=self.device)[None]
        return tokens, positions, self.cache.view(slot, slot + 1, self.cache.span(start + len(ids), SPAN))

    def decode(self, ids: torch.Tensor, positions: Seq[int]) -> torch.Tensor:
        view = self.cache.view(0, self.slots, self.cache.span(max(positions) + 1, SPAN))
        return self._step(ids, upload(positions, self.device), view)[:, : self.vocab_size]

    def close(self) -> None:
        if self._forget is not None:
            self._forget(self.decoder, self.cache)
        super().close()
