"""A complete small Model: its vocabulary is the bytes and a few longer tokens, and it continues every prompt with one
script. It computes real logits, samples with core's Sampler, and keeps the contract of `run`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq

import numpy as np

from codellm.backend import Backend
from codellm.model import Model, ModelInfo
from codellm.sampler import Sampler
from codellm.sequence import Sequence, Token
from codellm.slots import Slots
from codellm.tokenizer import Tokenizer

WORDS = (b"def", b"return", b"\n\n", b"  ", "né".encode())
EOS = 256 + len(WORDS)
FIM = {"<fim_prefix>": EOS + 1, "<fim_suffix>": EOS + 2, "<fim_middle>": EOS + 3, "<file_sep>": EOS + 4}
VOCABULARY = EOS + 5


class ByteTokenizer(Tokenizer):
    vocab_size = VOCABULARY
    bos = None
    eos = EOS
    add_bos = False

    def encode(self, text: str, special: bool = False) -> list[int]:
        data, ids = text.encode(), []
        while data:
            word = next((word for word in WORDS if data.startswith(word)), data[:1])
            ids.append(256 + WORDS.index(word) if word in WORDS else data[0])
            data = data[len(word) :]
        return ids

    def token_bytes(self, id: int) -> bytes:
        if id < 256:
            return bytes([id])
        return WORDS[id - 256] if id < EOS else b""

    def special_id(self, token: str) -> int | None:
        return FIM.get(token)


class ScriptModel(Model):
    """Continues a prompt with `script` and the end-of-text token; then starts again, for those who ignore it."""

    def __init__(
        self, script: str = "hello", *, ids: list[int] | None = None, context: int = 64, slots: int = 2
    ) -> None:
        self.tokenizer = ByteTokenizer()
        self.script = [*(self.tokenizer.encode(script) if ids is None else ids), EOS]
        self.slots = slots
        self.steps = 0
        self.info = ModelInfo(
            backend="script", architecture="script", parameters=0, weight_bytes=0, context_length=context,
            batch_size=slots,
        )  # fmt: skip

    def next_logits(self, position: int) -> np.ndarray:
        logits = np.zeros(VOCABULARY, np.float32)
        logits[self.script[position % len(self.script)]] = 5.0
        return logits

    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        with self.claim():
            slots, samplers = Slots(sequences, self.slots), {}
            while running := slots.refill():
                self.steps += 1
                yield [token for sequence in running for token in self.step(sequence, samplers)]

    def step(self, sequence: Sequence, samplers: dict[Sequence, Sampler]) -> list[Token]:
        if sequence.prompt_ids[0] == 0:  # a NUL first: the fault of this sequence alone
            sequence.error = ValueError("this model cannot read NUL")
            return []
        sampler = samplers.setdefault(sequence, Sampler(sequence))
        return [sampler(self.next_logits(len(sequence.token_ids)))]

    def score(self, batch: Seq[Seq[int]]) -> list[np.ndarray]:
        with self.claim():
            return [np.full(max(len(ids) - 1, 0), -np.log(VOCABULARY), np.float32) for ids in batch]

    def logits(self, ids: Seq[int]) -> np.ndarray:
        return self.next_logits(0)


class ScriptBackend(Backend):
    name = "script"
    formats = frozenset({"safetensors"})

    def load(self, spec, source) -> ScriptModel:
        return ScriptModel()
