"""A small backend that keeps every contract: a seeded table gives the logits after each prefix, several sequences run
together, end-of-text comes up, logits tie. Those of `support.broken` each break one thing of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np

from codellm.backend import Backend
from codellm.errors import ContextLengthError, InvalidValueError, ModelFileError
from codellm.model import Model, ModelInfo
from codellm.options import Option, choice, read
from codellm.sampler import Sampler
from codellm.sequence import Sequence, Token
from codellm.slots import Slots
from codellm.tokenizer import Tokenizer

WORDS = (b"def", b"return", b"\n\n", b"  ", "né".encode(), "🙂".encode()[:2])
EOS = 256 + len(WORDS)
SPECIAL = {"<|endoftext|>": EOS} | {
    name: EOS + 1 + number for number, name in enumerate(("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>"))
}
VOCABULARY = EOS + len(SPECIAL)
ROWS = 16381  # a prime, so that prefixes spread over all of them; 17 MiB, so that a leak shows


class SoundTokenizer(Tokenizer):
    """Bytes, a few longer tokens that also cut characters, and special tokens."""

    vocab_size = VOCABULARY
    bos = None
    eos = EOS
    add_bos = False

    def encode(self, text: str, special: bool = False) -> list[int]:
        data, ids = text.encode(), []
        while data:
            known = {name.encode(): id for name, id in SPECIAL.items()} if special else {}
            known |= {word: 256 + number for number, word in enumerate(WORDS)}
            word = next((word for word in known if data.startswith(word)), data[:1])
            ids.append(known.get(word, data[0]))
            data = data[len(word) :]
        return ids

    def token_bytes(self, id: int) -> bytes:
        if id < 256:
            return bytes([id])
        return WORDS[id - 256] if id < EOS else b""

    def special_id(self, token: str) -> int | None:
        return SPECIAL.get(token)


@functools.cache
def table() -> np.ndarray:
    """Logits [ROWS, V]: printable text is likely, end-of-text comes once in a while, and steps of 1/4 make ties."""
    logits = 2 * np.random.default_rng(1).standard_normal((ROWS, VOCABULARY), np.float32)
    logits[:, :32] -= 9
    logits[:, 127:256] -= 9
    logits[:, EOS] += 2
    return np.round(logits * 4) / 4


@attrs.define
class State:
    """A sequence that runs: the row of the table that its prefix has led to, and its sampler."""

    row: int
    sampler: Sampler


class SoundModel(Model):
    """Each prefix leads to a row of the table, which holds the logits of what comes next."""

    tokenizer_type = SoundTokenizer
    sampler_type = Sampler

    def __init__(self, backend: str, spec) -> None:
        self.tokenizer = self.tokenizer_type()
        self.table = table().copy()
        self.info = ModelInfo(
            backend=backend, architecture="table", parameters=self.table.size, weight_bytes=self.table.nbytes,
            context_length=min(spec.context_length or 1024, 1024), batch_size=spec.batch_size,
            scheme=spec.scheme or "none",
        )  # fmt: skip

    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        with self.claim():
            yield from self.steps(sequences)

    def steps(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        slots, states = self.slots(sequences), {}
        while running := slots.refill():
            yield self.step(running, states)

    def slots(self, sequences: Iterable[Sequence | None]) -> Slots:
        return Slots(sequences, self.info.batch_size)

    def step(self, running: list[Sequence], states: dict[Sequence, State]) -> list[Token]:
        """One token of each that runs; a newcomer's prompt is computed first."""
        for one in running:
            if one not in states:
                self.begin(one, states)
        ready = [one for one in running if one.error is None]
        if not ready:
            return []
        logits = self.compute([states[one].row for one in ready])
        tokens = [states[one].sampler(row) for one, row in zip(ready, logits, strict=True)]
        for token in tokens:
            state = states[token.sequence]
            state.row = self.next_row(state.row, token.id)
        return tokens

    def begin(self, one: Sequence, states: dict[Sequence, State]) -> None:
        try:
            states[one] = State(self.prefill(self.checked(one.prompt_ids)), self.sampler_type(one))
        except InvalidValueError as error:
            one.error = error

    def prefill(self, ids: Seq[int]) -> int:
        return functools.reduce(self.next_row, ids, 0)

    def next_row(self, row: int, id: int) -> int:
        return (row * 31 + id + 1) % ROWS

    def compute(self, rows: list[int]) -> np.ndarray:
        """Logits [B, V]."""
        return self.table[rows]

    def checked(self, ids: Seq[int]) -> Seq[int]:
        if not len(ids) or not 0 <= min(ids) <= max(ids) < VOCABULARY:
            raise InvalidValueError(f"{list(ids)} are not one or more tokens of the vocabulary")
        return ids

    def fitting(self, ids: Seq[int]) -> Seq[int]:
        if len(ids) > self.info.context_length:
            raise ContextLengthError(f"{len(ids)} tokens do not fit {self.info.context_length}")
        return self.checked(ids)

    def score(self, batch: Seq[Seq[int]]) -> list[np.ndarray]:
        with self.claim():
            return [self.score_one(ids) for ids in batch]

    def score_one(self, ids: Seq[int]) -> np.ndarray:
        ids = self.fitting(ids)
        rows = [self.prefill(ids[: end + 1]) for end in range(len(ids) - 1)]
        logits = self.table[rows].astype(np.float64)
        totals = np.log(np.exp(logits).sum(1))
        return (logits[np.arange(len(rows)), ids[1:]] - totals).astype(np.float32)

    def logits(self, ids: Seq[int]) -> np.ndarray:
        with self.claim():
            return self.table[self.prefill(self.checked(ids))].copy()

    def close(self) -> None:
        super().close()
        self.table = None


class SoundBackend(Backend):
    name = "sound"
    formats = frozenset({"safetensors"})
    options: Mapping[str, Option[Any]] = MappingProxyType({"rows": choice("all", "half")})
    model = SoundModel

    def load(self, spec, source) -> Model:
        read(spec.options, SoundBackend.options)
        if spec.device not in ("auto", "cpu"):
            raise InvalidValueError(f"{self.name} runs on cpu, not on {spec.device}")
        if not source.path.exists():
            raise ModelFileError(f"{source.path}: there is no such directory")
        return self.model(self.name, spec)
