"""A loaded GGUF model: codellm's Model on one llama.cpp context."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import numpy as np

from codellm.admission import Limits
from codellm.errors import InvalidValueError
from codellm.model import Model, ModelInfo
from codellm_cpu.llama.prefixes import Prefixes
from codellm_cpu.llama.schedule import Scheduler
from codellm_cpu.llama.score import distributions, score
from codellm_cpu.llama.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm.sequence import Sequence, Token
    from codellm_cpu.llama.library import NativeContext, NativeModel


class LlamaCppModel(Model):
    """Runs many sequences on one context. Nothing is kept between two calls: a repeated prompt is computed again.

    With `-o prefix_cache` what sequences left is kept from one `run` to the next (see `Prefixes`); `score`, `logits`
    and `distributions` take nothing of it, and forget it.

    With one thread, a batch computes bit for bit what singles compute where the matrix kernels treat each row alike
    whatever the number of rows. Measured on x86 with AVX-512: so for q8_0 at any batch size and for k-quants with
    `-o repack=off` below 8 rows. From 8 rows on ggml multiplies k-quants in tiles, which moves log-probabilities (of
    the bundled model in q4_k_m by 0.24 rms, while its divergence from bf16 stays 0.20), and f32, f16, bf16 and q4_0
    differ in the last bits. A prefix that two different prompts share is cut where they part, which moves rounding too.

    `stack` owns the native handles and is closed with the model.
    """

    tokenizer: LlamaTokenizer

    def __init__(
        self, info: ModelInfo, native: NativeModel, context: NativeContext, stack: contextlib.ExitStack
    ) -> None:
        self.info = info
        self.tokenizer = LlamaTokenizer(native)
        self._context = context
        self._prefixes = Prefixes(context)
        self._stack = stack

    @property
    def decoded_tokens(self) -> int:
        """Tokens llama.cpp has computed since loading; a shared prefix counts once."""
        return self._context.decoded_tokens

    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        with self.claim(), self._prefixes.lent():
            yield from Scheduler(self._prefixes, sequences, self.tokenizer.vocab_size).steps()

    def score(self, batch: Seq[Seq[int]]) -> list[npt.NDArray[np.float32]]:
        arrays = [self._ids(ids) for ids in batch]
        with self._emptied():
            return [score(self._context, array) for array in arrays]

    def logits(self, ids: Seq[int]) -> npt.NDArray[np.float32]:
        array = self._ids(ids)
        if not len(array):
            raise InvalidValueError("logits needs at least one token id")
        with self._emptied():
            return self._last_logits(array)

    def distributions(self, ids: Seq[int], start: int = 0) -> Iterator[npt.NDArray[np.float32]]:
        array = self._ids(ids)
        with self._emptied():
            yield from distributions(self._context, array, start)

    @contextlib.contextmanager
    def _emptied(self) -> Iterator[None]:
        """The time of a call that takes the context for itself."""
        with self.claim():
            self._prefixes.clear()
            yield

    def _last_logits(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        context = self._context
        context.clear()
        for start in range(0, len(ids), context.shape.chunk):
            stop = min(start + context.shape.chunk, len(ids))
            last = context.prefill(0, ids, start, stop, wanted=stop == len(ids))
        logits: npt.NDArray[np.float32] = last.copy()
        context.spoilt |= bool(np.isnan(logits).any())
        context.clear()
        return logits

    def _ids(self, ids: Seq[int]) -> npt.NDArray[np.int32]:
        """Check that `ids` are tokens and fit the context → an array of them."""
        return Limits(self.info.context_length, self.tokenizer.vocab_size).checked(ids)

    def close(self) -> None:
        super().close()
        self._stack.close()
