"""Text to ids and back: the contract, its implementation on a tokenizer.json, and bytes as tokens."""

from __future__ import annotations

import abc
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from codellm.chat_template import ChatTemplate
from codellm.errors import ModelFileError, NoFimError
from codellm.fim import TEMPLATES, FimIds, find_fim
from codellm.rows import leave_out
from codellm.sources.regular import read_text
from codellm.sources.special_tokens import ROLES, token_string
from codellm.text import utf8
from codellm.tokenizer_library import opened, surviving
from codellm.tokenizer_probe import require_sound

if TYPE_CHECKING:
    from codellm.sources import ModelSource

TURNS = ("<｜User｜>", "<｜Assistant｜>")
"""Whose turn it is, as DeepSeek's models of conversations mark it (deepseek-ai/DeepSeek-R1, tokenizer.json)."""

CONTROLS = frozenset(
    text for template in TEMPLATES for text in (template.prefix, template.suffix, template.middle, *template.eot)
).union(TURNS)
"""Strings that steer a model, whatever its tokenizer.json says of them.

Those of Qwen2.5-Coder and DeepSeek-Coder list their fill-in-the-middle tokens as ordinary added ones, and those of
DeepSeek-R1 its turns: user text could write them.
"""

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte in a vocabulary of whole characters, for what those do not cover."""


class Tokenizer(abc.ABC):
    """The tokenizer of a loaded model.

    `bos` goes before a prompt where `add_bos` says so; `eos` ends a text, and begins one where there is no `bos`. Both
    are None where the model has none. A sequence ends at `eos` and at each of `ends`: a model of conversations names
    the end of a turn beside that of a text.
    """

    vocab_size: int
    bos: int | None
    eos: int | None
    ends: frozenset[int] = frozenset()
    add_bos: bool
    chat_template: ChatTemplate | None = None
    """How the model writes a conversation; None where it was not taught to."""
    controls: Mapping[str, int] = MappingProxyType({})
    """All special tokens by their strings. Whoever gives a chat template names them: in a message they stay text."""

    @abc.abstractmethod
    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of `text`, with nothing added. Special strings in it stay text unless `special` is set.

        Raises:
            InvalidValueError: it holds a lone surrogate, which is no character (`codellm.text.utf8`).
        """

    @abc.abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The bytes that `id` stands for; none for a special token, so that it never shows in text."""

    @abc.abstractmethod
    def special_id(self, token: str) -> int | None:
        """The id of a special token by its string, None where the vocabulary has no such special token."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of a prompt: BOS where the model wants it; an empty prompt is the end-of-text token, as in training.

        Raises:
            InvalidValueError: it holds a lone surrogate.
        """
        utf8(text, "the prompt")
        ids = self.encode(text)
        if self.add_bos and self.bos is not None:
            return [self.bos, *ids]
        start = self.bos if self.bos is not None else self.eos
        return ids if ids or start is None else [start]

    @functools.cached_property
    def fim(self) -> FimIds | None:
        """The fill-in-the-middle tokens, None where the model has none."""
        return find_fim(self.special_id)

    def infill_ids(self, prefix: str, suffix: str) -> list[int]:
        """Ids of a prompt for the text between: BOS where the model wants it, both texts, the tokens around them.

        Raises:
            NoFimError: the model has no fill-in-the-middle tokens.
            InvalidValueError: a text holds a lone surrogate.
        """
        utf8(prefix, "the text before")
        utf8(suffix, "the text after")
        if self.fim is None:
            raise NoFimError("the tokenizer has no fill-in-the-middle tokens; use a model that was trained to infill")
        start = [self.bos] if self.add_bos and self.bos is not None else []
        return start + self.fim.prompt(self.encode(prefix), self.encode(suffix))


class HFTokenizer(Tokenizer):
    """A tokenizer.json on the `tokenizers` library: byte-level, or of whole characters with a space written "▁".

    BOS goes before a prompt where tokenizer_config.json (`config`) says so, else where the file's own post-processor
    puts it. A sequence ends at each of `ends`, which stand for strings or ids (`ModelSource.ends`), and at the config's
    `eos_token`; `eos` is the first of them that is a special token, that of the config before the others.

    What a file says of cutting and padding is of the run that saved it, and is left out; so are tokens from id `rows`
    on, for which the model's embedding has none.

    Raises:
        ModelFileError: the file is missing, is no tokenizer.json, or the library does not survive it; `encode`: the
            library fails on the text.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], ends: Iterable[str | int] = (), rows: int | None = None
    ) -> None:
        bos, eos = token_string(config, "bos"), token_string(config, "eos")
        named = [*([] if eos is None else [eos]), *ends]
        self._path, text = path, read_text(path)
        require_sound(path, text)
        with surviving(f"{path}: not a readable tokenizer.json"):
            text = with_controls(text, {*named, *([] if bos is None else [bos])}, rows)
            self._tokenizer, self._plain = opened(text), opened(text)
        self._plain.encode_special_tokens = True
        self._byte_level = not getattr(self._tokenizer.model, "byte_fallback", False)
        self.vocab_size = self._tokenizer.get_vocab_size()
        added = self._tokenizer.get_added_tokens_decoder()
        self.controls = {token.content: id for id, token in added.items() if token.special}
        self._added = {id: token.content for id, token in added.items()}
        self.bos = None if bos is None else self.controls.get(bos)
        found = [id for name in named if (id := self._id(name)) is not None]
        special = frozenset(self.controls.values())
        self.eos = next((id for id in found if id in special), None)  # it also begins texts, and shows none
        self.ends = frozenset(found)
        first = next(iter(self._tokenizer.encode("").ids), None)
        if self.bos is None and first in special - self.ends:
            self.bos = first  # no other file names it
        begins = first is not None and first == self.bos
        self.add_bos = begins if config.get("add_bos_token") is None else bool(config["add_bos_token"])

    @classmethod
    def of(cls, source: ModelSource) -> Self:
        """The tokenizer of a source that has a tokenizer.json.

        Raises:
            ModelFileError: the file is missing, or is no tokenizer.json.
        """
        if source.tokenizer is None:
            raise ModelFileError(f"{source.path or source.name}: no tokenizer.json")
        rows = source.config.get("vocab_size")
        found = cls(source.tokenizer, source.tokenizer_config, source.ends, rows if type(rows) is int else None)
        if source.chat_template is not None:
            named = {f"{role}_token": token_string(source.tokenizer_config, role) for role in ROLES}
            tokens = {name: token for name, token in named.items() if token is not None}
            found.chat_template = ChatTemplate(source.chat_template, tokens, source.path or source.name)
        return found

    def _id(self, name: str | int) -> int | None:
        if isinstance(name, str):
            return self._tokenizer.token_to_id(name)
        return name if 0 <= name < 1 << 32 and self._tokenizer.id_to_token(name) is not None else None

    def encode(self, text: str, special: bool = False) -> list[int]:
        utf8(text)
        tokenizer = self._tokenizer if special else self._plain
        with surviving(f"{self._path}: the tokenizers library fails on a text"):
            return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, id: int) -> bytes:
        if id in self._added:
            content = self._added[id]
            return b"" if content in self.controls else content.encode()
        token = self._tokenizer.id_to_token(id) if 0 <= id < 1 << 32 else None
        if token is None:
            return b""
        if self._byte_level:
            table = byte_of()
            # as the library decodes: what is written in other characters too is text as it stands
            return bytes(table[char] for char in token) if table.keys() >= set(token) else token.encode()
        byte = BYTE_TOKEN.fullmatch(token)
        return bytes.fromhex(byte[1]) if byte else token.replace("▁", " ").encode()

    def special_id(self, token: str) -> int | None:
        return self.controls.get(token)


def with_controls(text: str, named: Iterable[str | int], rows: int | None = None) -> str:
    """A tokenizer.json whose `CONTROLS` and `named` added tokens are special, and whose tokens have one of `rows`.

    It is the very text where that is so already.

    Raises:
        ValueError: it is no JSON, or a byte has none of the rows.
    """
    data = json.loads(text)
    fewer = rows is not None and leave_out(data, rows, BYTES)
    added = data.get("added_tokens") or []
    steering = {*CONTROLS, *named}
    ordinary = [
        token for token in added if not token["special"] and not steering.isdisjoint((token["content"], token["id"]))
    ]
    for token in ordinary:
        token["special"] = True
    return json.dumps(data) if ordinary or fewer else text


class ByteTokenizer(Tokenizer):
    """Every byte of UTF-8 is a token, and one more ends a text: for models that read bytes."""

    vocab_size = 257
    bos = None
    eos = 256
    add_bos = False

    def encode(self, text: str, special: bool = False) -> list[int]:
        return list(utf8(text))

    def token_bytes(self, id: int) -> bytes:
        return bytes([id]) if 0 <= id < 256 else b""

    def special_id(self, token: str) -> int | None:
        return None


@functools.cache
def byte_of() -> Mapping[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    GPT-2's table (openai/gpt-2, encoder.py, bytes_to_unicode): printable Latin-1 bytes are themselves, the 68 others
    are the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return table


BYTES = frozenset(byte_of()) | {f"<0x{byte:02X}>" for byte in range(256)}
"""The tokens that single bytes are written with, in vocabularies of bytes and of whole characters."""
