"""codellm's Model on an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import numpy as np
import torch

from codellm.admission import Limits
from codellm.errors import InvalidValueError, ModelClosedError
from codellm.model import Memory, Model, ModelInfo
from codellm.torch.device import SCORED, enough_memory, release, upload
from codellm.torch.engine import Engine
from codellm.torch.prefixes import Prefixes
from codellm.torch.schedule import Scheduler

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm.sequence import Sequence, Token
    from codellm.tokenizer import Tokenizer


class TorchModel(Model):
    """Runs many sequences on one engine. Nothing is kept between two calls, unless `info` has a prefix cache.

    Then what sequences leave is kept from one `run` to the next (see `Prefixes`); `score`, `logits` and `distributions`
    take nothing of it.
    """

    def __init__(self, info: ModelInfo, tokenizer: Tokenizer, engine: Engine) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._engine: Engine | None = engine
        self._prefixes = None if info.prefix_cache is None else Prefixes(engine, info.prefix_cache)

    @property
    def engine(self) -> Engine:
        """Engine, as long as the model is open.

        Raises:
            ModelClosedError: the model is closed.
        """
        if self._engine is None:
            raise ModelClosedError(f"the model {self.info.path or self.info.architecture} is closed; load it again")
        return self._engine

    @contextlib.contextmanager
    def _computing(self) -> Iterator[Engine]:
        """The engine, in its mode; a device that is full is told as NotEnoughMemoryError.

        Of one call alone: a generator would leave the mode on for whoever drives it.
        """
        engine = self.engine
        with enough_memory(engine.device), engine.mode():
            yield engine

    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        with self.claim():
            scheduler = Scheduler(self.engine, sequences, self._prefixes)
            steps = scheduler.steps()
            sound = False
            try:
                while (tokens := self._next(steps)) is not None:
                    yield tokens
                sound = True
            except GeneratorExit:  # whoever reads has enough, which is no fault
                sound = True
                raise
            finally:
                if self._engine is not None:
                    with self._computing():
                        scheduler.drain()
                        if self._prefixes is not None and not sound:
                            self._prefixes.clear()

    def _next(self, steps: Iterator[list[Token]]) -> list[Token] | None:
        """The next step, None at the end; the model may have been closed since the last one."""
        with self._computing():
            return next(steps, None)

    def score(self, batch: Seq[Seq[int]]) -> list[npt.NDArray[np.float32]]:
        entries = [self._ids(ids) for ids in batch]
        with self.claim(), self._computing() as engine:
            self._vacate()
            return [self._score(engine, ids) for ids in entries]

    def _vacate(self) -> None:
        """Have nothing in the slot that `score`, `logits` and `distributions` compute in."""
        if self._prefixes is not None:
            slot = self._prefixes.slots[0]
            self._prefixes.vacate(slot)
            slot.forget()

    def _score(self, engine: Engine, ids: list[int]) -> npt.NDArray[np.float32]:
        step = min(SCORED[engine.device.type], engine.chunk)
        scores = np.empty(max(len(ids) - 1, 0), np.float32)
        for start in range(0, len(scores), step):
            stop = min(start + step, len(scores))
            logprobs = engine.all_position_logits(0, ids[start:stop], start).log_softmax(dim=-1)  # [T, V]
            following = upload(ids[start + 1 : stop + 1], engine.device)[:, None]
            scores[start:stop] = logprobs.gather(-1, following)[:, 0].cpu().numpy()
        if np.isnan(scores).any():
            engine.wipe(0)
        return scores

    def distributions(self, ids: Seq[int], start: int = 0) -> Iterator[npt.NDArray[np.float32]]:
        entry = self._ids(ids)
        with self.claim():
            with self._computing():
                self._vacate()
            spoilt = False
            try:
                for block in self._blocks(entry, start):
                    spoilt |= bool(np.isnan(block[:, 0]).any())  # of one NaN the whole row becomes NaN
                    yield block
            finally:
                if spoilt and self._engine is not None:
                    with self._computing() as engine:
                        engine.wipe(0)

    def _blocks(self, ids: list[int], start: int) -> Iterator[npt.NDArray[np.float32]]:
        step = min(SCORED[self.engine.device.type], self.engine.chunk)
        for begin in range(0, len(ids), step):
            with self._computing() as engine:
                logprobs = engine.all_position_logits(0, ids[begin : begin + step], begin).log_softmax(dim=-1)  # [T, V]
            if begin + len(logprobs) > start:
                yield logprobs[max(start - begin, 0) :].cpu().numpy()

    def logits(self, ids: Seq[int]) -> npt.NDArray[np.float32]:
        entry = self._ids(ids)
        if not entry:
            raise InvalidValueError("logits needs at least one token id")
        with self.claim(), self._computing() as engine:
            self._vacate()
            for start in range(0, len(entry), engine.chunk):
                last = engine.prefill(0, entry[start : start + engine.chunk], start)
            found: npt.NDArray[np.float32] = last.cpu().numpy().copy()
            if np.isnan(found).any():
                engine.wipe(0)
            return found

    def _ids(self, ids: Seq[int]) -> list[int]:
        """Check that `ids` are tokens and fit the context → themselves, as ints."""
        vocab_size = self._engine.vocab_size if self._engine is not None else self.tokenizer.vocab_size
        entry: list[int] = Limits(self.info.context_length, vocab_size).checked(ids).tolist()
        return entry

    def memory(self) -> Memory:
        host = super().memory()
        if self._engine is None or self._engine.device.type != "cuda":
            return host
        devices = self._engine.devices
        return Memory(
            host=host.host,
            host_peak=host.host_peak,
            device=sum(map(torch.cuda.memory_allocated, devices)),
            device_peak=sum(map(torch.cuda.max_memory_allocated, devices)),
        )

    def close(self) -> None:
        super().close()
        engine, self._engine = self._engine, None
        self._prefixes = None
        if engine is not None:
            device = engine.device
            engine.close()
            release(device)
