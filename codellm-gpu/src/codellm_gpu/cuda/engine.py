"""The engine of `torch-cuda`: prompts in chunks, steps of one sequence as one kernel, of several as captured graphs."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, ClassVar

from codellm.torch.device import upload
from codellm.torch.engine import Engine

if TYPE_CHECKING:
    import torch

    from codellm.torch.cache import Cache
    from codellm.torch.decoder import Decoder
    from codellm_gpu.cuda.graphs import GraphSteps
    from codellm_gpu.cuda.kernel import StepKernel
    from codellm_gpu.cuda.prefill import Prefill


class CudaEngine(Engine):
    """Computes with `decoder`; without a `kernel` a step of one sequence is a graph too."""

    skips_idle: ClassVar[bool] = True

    def __init__(
        self,
        decoder: Decoder,
        cache: Cache,
        prompts: Prefill,
        graphs: GraphSteps,
        kernel: StepKernel | None,
        *,
        vocab_size: int,
        context_length: int,
        chunk: int,
    ) -> None:
        super().__init__(cache, vocab_size=vocab_size, context_length=context_length, chunk=chunk)
        self.decoder = decoder
        self.kernel = kernel
        self._prompts = prompts
        self._graphs = graphs

    def prefill(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self.decoder.logits(self._hidden(slot, ids, start)[-1:])[0, : self.vocab_size]

    def all_position_logits(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self.decoder.logits(self._hidden(slot, ids, start))[:, : self.vocab_size]

    def _hidden(self, slot: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._prompts.hidden(slot, upload(ids, self.device), start)  # [T, H]

    def decode(self, ids: torch.Tensor, positions: Seq[int]) -> torch.Tensor:
        active = [slot for slot, position in enumerate(positions) if position >= 0]
        if self.kernel is not None and len(active) == 1:
            logits = self.kernel(ids, active[0], positions[active[0]])
            self.likeliest = self.kernel.likeliest
            return logits[:, : self.vocab_size]
        self.likeliest = None
        return self._graphs(ids, positions)
