"""The vocabulary that a GGUF file carries, as codellm's Tokenizer."""

from __future__ import annotations

import ctypes
import functools
import re
import unicodedata
from typing import TYPE_CHECKING

import attrs
import numpy as np

from codellm.chat_template import ChatTemplate
from codellm.errors import BackendError
from codellm.fim import FimIds, find_fim
from codellm.text import utf8
from codellm.tokenizer import Tokenizer
from codellm_cpu.llama.pretokenizers import bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codellm_cpu.llama.library import NativeModel

ENDS_KEY = "codellm.tokenizer.end_token_ids"
"""Our own key: all ids that end a text, with spaces between. GGUF's keys name two beside the eos."""

_TEXTS = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
}
"""Texts that say what a token is for."""

NORMALIZER_KEY = "codellm.tokenizer.normalizer"
"""Our own key: the Unicode normal form that text is put into before it is tokenized."""


FIRST_SPACE_KEY = "codellm.tokenizer.first_space"
"""Our own key: a text gets a space before it, unless it begins with one, "▁", or an added token."""

STRIPS = {"lstrip": "codellm.tokenizer.lstrip_token_ids", "rstrip": "codellm.tokenizer.rstrip_token_ids"}
"""Our own keys: tokens that take the white space before or behind them, with spaces between."""

_SPACE = "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""Unicode's White_Space, which is what the tokenizers library strips."""


class LlamaTokenizer(Tokenizer):
    """Encodes with llama.cpp, so that a file tokenizes as its own header says.

    llama.cpp knows no Unicode normal forms, no tokens that take the space around them, and no space before the first
    word alone: where our converter noted that the model's tokenizer has them, text is brought into that form first.

    Usable while its model is open; afterwards it raises ModelClosedError.
    """

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._lib = lib = model.lib
        vocab = model.vocab
        self.vocab_size = model.vocab_size
        self.bos, self.eos = self._role("bos"), self._role("eos")
        self.add_bos = bool(lib.llama_vocab_get_add_bos(vocab))
        self._normalized = model.meta(NORMALIZER_KEY) == "NFC"
        self._first_space = model.meta(FIRST_SPACE_KEY) is not None
        self._strips = {
            side: [int(id) for id in (model.meta(key) or "").split() if id.isdecimal() and int(id) < self.vocab_size]
            for side, key in STRIPS.items()
        }
        self._pre = model.meta("tokenizer.ggml.pre") or ""
        self._bytes: list[bytes | None] = [None] * self.vocab_size
        self._buffer = ctypes.create_string_buffer(256)
        text = model.chat_template
        if text is not None:
            self.chat_template = ChatTemplate(text, self._named(), model.path)

    def _named(self) -> dict[str, str]:
        """The tokens that a chat template knows by name."""
        ids = {"bos": self.bos, "eos": self.eos}
        ids |= {role: _present(getattr(self._lib, f"llama_vocab_{role}")(self._model.vocab)) for role in ("sep", "pad")}
        return {f"{role}_token": self.text_of(id) for role, id in ids.items() if id is not None}

    @functools.cached_property
    def controls(self) -> Mapping[str, int]:  # type: ignore[override]  # counted once it is asked for
        """Tokens that llama.cpp takes for no text."""
        return self._of_kind(self._lib.LLAMA_TOKEN_ATTR_CONTROL | self._lib.LLAMA_TOKEN_ATTR_UNKNOWN)

    def _of_kind(self, kinds: int) -> dict[str, int]:
        attributes, vocab = self._lib.llama_vocab_get_attr, self._model.vocab
        return {self.text_of(id): id for id in range(self.vocab_size) if attributes(vocab, id) & kinds}

    @functools.cached_property
    def ends(self) -> frozenset[int]:  # type: ignore[override]  # counted once it is asked for
        """What llama.cpp ends a generation at, by the header's keys and by its own list of strings; what our key says.

        llama.cpp's list also has the end of a turn of a model that was never taught to converse, and the tokens
        between the files of a repository.
        """
        vocab, is_end = self._model.vocab, self._lib.llama_vocab_is_eog
        ours = (self._model.meta(ENDS_KEY) or "").split()
        ids = {int(id) for id in ours if id.isdecimal() and int(id) < self.vocab_size}
        ids.update(id for id in range(self.vocab_size) if is_end(vocab, id))
        guess = self._guess("eos")
        if guess is not None and not self._says(guess, "eos") and guess != self._lib.llama_vocab_eot(vocab):
            ids.discard(guess)
        return frozenset(ids)

    def _role(self, role: str) -> int | None:
        """The token of a role: by the header's key, else by its text; never by llama.cpp's guess, which is a number."""
        guess = self._guess(role)
        if guess is None:
            return _present(getattr(self._lib, f"llama_vocab_{role}")(self._model.vocab))
        found = (guess, *(sorted(self.ends) if role == "eos" else ()))
        return next((id for id in found if self._says(id, role)), None)

    def _guess(self, role: str) -> int | None:
        """What llama.cpp takes for a role that the header does not name: 11 in a byte-level vocabulary."""
        if self._model.meta(f"tokenizer.ggml.{role}_token_id") is not None:
            return None
        return _present(getattr(self._lib, f"llama_vocab_{role}")(self._model.vocab))

    def _says(self, id: int, role: str) -> bool:
        return self.text_of(id) in _TEXTS[role]

    def text_of(self, id: int) -> str:
        """The text of a token as it stands in the vocabulary, for messages."""
        text: bytes = self._lib.llama_vocab_get_text(self._model.vocab, id)
        return text.decode("utf-8", "replace")

    def encode(self, text: str, special: bool = False) -> list[int]:
        text = self._stripped(text, special)
        if self._normalized:
            text = unicodedata.normalize("NFC", text)
        if self._first_space and text and not text.startswith((" ", "▁", *self._added(special))):
            text = f" {text}"
        data, vocab = utf8(text), self._model.vocab
        return bounded(text, self._pre, lambda: self._tokenize(vocab, data, special))

    def _stripped(self, text: str, special: bool) -> str:
        """Text without the space that its added tokens take; a special string that stays text takes none."""
        for side, ids in self._strips.items():
            tokens = [self.text_of(id) for id in ids if special or not self._is_control(id)]
            found = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
            if found:
                text = re.sub(f"({found}){_SPACE}+" if side == "rstrip" else f"{_SPACE}+({found})", r"\1", text)
        return text

    def _added(self, special: bool) -> tuple[str, ...]:
        """Texts that are one token wherever they stand."""
        return (*self._ordinary, *self.controls) if special else self._ordinary

    @functools.cached_property
    def _ordinary(self) -> tuple[str, ...]:
        return tuple(self._of_kind(self._lib.LLAMA_TOKEN_ATTR_USER_DEFINED))

    def _is_control(self, id: int) -> bool:
        return bool(self._lib.llama_vocab_is_control(self._model.vocab, id))

    def _tokenize(self, vocab: int, data: bytes, special: bool) -> list[int]:
        ids = np.empty(len(data) + 8, np.int32)  # never more tokens than bytes, but for a prefix some vocabularies add
        for _ in range(2):
            pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = int(self._lib.llama_tokenize(vocab, data, len(data), pointer, len(ids), False, special))
            if count >= 0:
                found: list[int] = ids[:count].tolist()
                return found
            ids = np.empty(-count, np.int32)
        raise BackendError(f"llama.cpp could not tokenize a text of {len(data)} bytes")

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < self.vocab_size:
            return b""
        known = self._bytes[id]
        if known is None:
            known = self._bytes[id] = self._piece(id)
        return known

    def _piece(self, id: int) -> bytes:
        vocab = self._model.vocab
        length = self._lib.llama_token_to_piece(vocab, id, self._buffer, len(self._buffer), 0, False)
        if length < 0:
            self._buffer = ctypes.create_string_buffer(-length)
            length = self._lib.llama_token_to_piece(vocab, id, self._buffer, len(self._buffer), 0, False)
        return self._buffer.raw[:length]

    def special_id(self, token: str) -> int | None:
        if any("\ud800" <= char <= "\udfff" for char in token):  # no character, so no token has it
            return None
        ids = self.encode(token, special=True)
        if len(ids) != 1 or not self._lib.llama_vocab_is_control(self._model.vocab, ids[0]):
            return None
        text: bytes = self._lib.llama_vocab_get_text(self._model.vocab, ids[0])
        return ids[0] if text == token.encode() else None

    @functools.cached_property
    def fim(self) -> FimIds | None:
        """The tokens the header names or llama.cpp finds by their text; what else ends a middle is the family's."""
        vocab = self._model.vocab
        names = ("pre", "suf", "mid", "pad", "rep", "sep")
        found = {name: _present(getattr(self._lib, f"llama_vocab_fim_{name}")(vocab)) for name in names}
        family = find_fim(self.special_id)
        prefix, suffix, middle = found["pre"], found["suf"], found["mid"]
        if prefix is None or suffix is None or middle is None:
            return family
        eot = frozenset(id for id in (found["pad"], found["rep"], found["sep"]) if id is not None)
        if family is not None and (family.prefix, family.suffix, family.middle) == (prefix, suffix, middle):
            return attrs.evolve(family, eot=family.eot | eot)
        return FimIds(prefix=prefix, suffix=suffix, middle=middle, eot=eot, file=found["sep"])


def _present(id: int) -> int | None:
    """Id as we write it: llama.cpp says -1 for a token that the vocabulary does not have."""
    return int(id) if id >= 0 else None
