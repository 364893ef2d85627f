"""Log-probabilities as OpenAI's API writes them: of conversations, and in the older form of completions."""

from __future__ import annotations

import codecs
import functools
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

from codellm.result import TokenLogprobs
from codellm.tokenizer import Tokenizer

LEAST = -9999.0
"""What is told of a token that cannot come: JSON knows no infinity."""

Told = tuple[int, Seq[TokenLogprobs]]
"""Of a prompt: its first token, of which nothing is known, and the others."""


class Vocabulary:
    """The tokens of a model as a client sees them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def data(self, id: int) -> bytes:
        """The bytes of a token, none where it is special."""
        return self._tokenizer.token_bytes(id)

    def name(self, id: int, prefix: str = "") -> str:
        """The text of a token, or its string where it is special; `prefix` and escapes where its bytes are no text."""
        data = self.data(id)
        if not data:
            return self._special.get(id, f"token_id:{id}")
        try:
            return data.decode()
        except UnicodeDecodeError:
            return prefix + "".join(f"\\x{byte:02x}" for byte in data)

    @functools.cached_property
    def _special(self) -> Mapping[int, str]:
        return {id: text for text, id in self._tokenizer.controls.items()}


def contents(vocabulary: Vocabulary, told: Iterable[TokenLogprobs]) -> dict[str, Any]:
    """Tokens as an answer in a conversation has them, each with the likeliest beside it."""

    def entry(id: int, logprob: float) -> dict[str, Any]:
        data = vocabulary.data(id)
        return {"token": vocabulary.name(id), "logprob": finite(logprob), "bytes": list(data) if data else None}

    content = [{**entry(one.id, one.logprob), "top_logprobs": [entry(*pair) for pair in one.top]} for one in told]
    return {"content": content, "refusal": None}


class Columns:
    """Tokens of one choice as a completion has them: a list for each field, in parts that follow each other.

    What is told of a `prompt` goes before the first of them.
    """

    def __init__(self, vocabulary: Vocabulary, prompt: Told | None = None) -> None:
        self._vocabulary, self._prompt = vocabulary, prompt
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def of(self, told: Iterable[TokenLogprobs]) -> dict[str, Any]:
        """The next tokens, each at the character of the text that it begins in."""
        columns: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        if self._prompt is not None:
            first, rest = self._prompt
            self._prompt = None
            self._add(columns, first, None, None)
            told = [*rest, *told]
        for one in told:
            top: dict[str, float] = {}
            for id, logprob in (*one.top, (one.id, one.logprob)):  # the likelier of those of one name, and its own
                top.setdefault(self._vocabulary.name(id, "bytes:"), finite(logprob))
            self._add(columns, one.id, finite(one.logprob), top)
        return columns

    def _add(self, columns: dict[str, list[Any]], id: int, logprob: float | None, top: dict[str, float] | None) -> None:
        columns["tokens"].append(self._vocabulary.name(id, "bytes:"))
        columns["token_logprobs"].append(logprob)
        columns["top_logprobs"].append(top)
        columns["text_offset"].append(self._offset)
        self._offset += len(self._decoder.decode(self._vocabulary.data(id)))


def finite(logprob: float) -> float:
    """A log-probability that JSON can tell, without what rounding put above 0."""
    return min(max(logprob, LEAST), 0.0)
