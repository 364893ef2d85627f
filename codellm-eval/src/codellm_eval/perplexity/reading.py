"""How a text is read to score it: what a model is given together, and which of those tokens are scored.

`sliding`: the documents are one stream of tokens, read through a window that moves by `stride`; each token is scored
once, by the first window that holds it. The first token of the stream has no context and is not scored. This is the
protocol of Hugging Face's guide "Perplexity of fixed-length models" (docs/transformers/perplexity). The guide's loop
weighs the mean of each window by one token less than it scores, from the second window on; here every token counts the
same, which moves the perplexity in the fourth digit.

`llama-chunks`: the documents are one text, cut into chunks of `window` tokens that are read each by itself; a rest at
the end is dropped. Of a chunk the tokens after the first of its second half are scored. Where the model wants a begin
token, it stands before the text and in place of each chunk's first token. This is what llama.cpp's llama-perplexity
prints (tools/perplexity/perplexity.cpp, `perplexity`).

`document`: each document by itself, after the token that begins a document in training, so that every token of it is
scored; one longer than the window through windows as in `sliding`. Only here do bits per byte have an exact meaning,
and they alone compare models with different tokenizers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Self, get_args

import attrs

from codellm.errors import InputError, InvalidValueError

if TYPE_CHECKING:
    from codellm.tokenizer import Tokenizer
    from codellm_eval.perplexity.documents import Document

Protocol = Literal["sliding", "llama-chunks", "document"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
WINDOW = 1024
"""Tokens; long enough for the files of a corpus, short enough for every model that is compared."""
CHUNK = 512
"""Tokens of a chunk, as llama-perplexity takes them where -c does not say."""


@attrs.frozen(kw_only=True)
class Passage:
    """Ids [T] that a model is given together; those from `scored` on, at least 1, are scored.

    `document` is the index of the document that they are of; 0 where the documents are one text.
    """

    document: int
    ids: Sequence[int]
    scored: int

    @property
    def tokens(self) -> int:
        """How many are scored."""
        return len(self.ids) - self.scored


@attrs.frozen
class Window:
    """Tokens `begin` to `end` of a text, of which those from `scored` on are scored: `begin < scored < end`."""

    begin: int
    end: int
    scored: int


def windows(length: int, window: int, stride: int) -> Iterator[Window]:
    """The windows over `length` tokens: they score the tokens 1 to length - 1, each once."""
    begin, scored = 0, 1
    while scored < length:
        end = min(begin + window, length)
        yield Window(begin, end, scored)
        begin, scored = begin + stride, end


def chunks(length: int, window: int) -> Iterator[Window]:
    """The whole chunks of `length` tokens, each scored after the first token of its second half."""
    for begin in range(0, length - window + 1, window):
        yield Window(begin, begin + window, begin + window // 2 + 1)


@attrs.frozen(kw_only=True)
class Reading:
    """A protocol and its sizes, in tokens. `str` names it for the header of a table."""

    protocol: Protocol
    window: int
    stride: int

    @classmethod
    def of(cls, protocol: Protocol, context: int, window: int | None = None, stride: int | None = None) -> Self:
        """The reading for a model of `context` tokens; where None, the window is usual and the stride half of it.

        Raises:
            InvalidValueError: one is out of its range; the message names it.
        """
        in_chunks = protocol == "llama-chunks"
        window = min(CHUNK if in_chunks else WINDOW, context) if window is None else window
        least = 3 if in_chunks else 2
        if not least <= window <= context:
            raise InvalidValueError(
                f"--window must be from {least} to the context's {context} tokens under {protocol}, not {window}"
            )
        if in_chunks:
            if stride is not None:
                raise InvalidValueError("--stride says nothing under llama-chunks, whose chunks do not overlap")
            return cls(protocol=protocol, window=window, stride=window)
        stride = window // 2 if stride is None else stride
        if not 1 <= stride < window:
            # A stride of the whole window would leave the first token of each without context, unscored.
            raise InvalidValueError(f"--stride must be from 1 to {window - 1}, one less than the window, not {stride}")
        return cls(protocol=protocol, window=window, stride=stride)

    def __str__(self) -> str:
        stride = "" if self.protocol == "llama-chunks" else f", stride {self.stride}"
        return f"{self.protocol}, window {self.window}{stride}"

    def passages(self, tokenizer: Tokenizer, documents: Sequence[Document]) -> list[Passage]:
        """What is given to the model, in the order of the text.

        Raises:
            InvalidValueError: the model has no token that begins a document, and the protocol needs one.
            InputError: there is no token to score.
        """
        start = tokenizer.bos if tokenizer.add_bos else None
        texts = token_streams(tokenizer, documents, self.protocol)
        found = []
        for document, ids in enumerate(texts):
            for part in self._windows(len(ids)):
                given = ids[part.begin : part.end]
                if self.protocol == "llama-chunks" and start is not None:
                    given[0] = start
                found.append(Passage(document=document, ids=given, scored=part.scored - part.begin))
        if not found:
            least = f"{self.window} tokens, a chunk," if self.protocol == "llama-chunks" else "a token to score"
            raise InputError(f"the text has not {least} under the protocol {self.protocol}; give a longer one")
        return found

    def _windows(self, length: int) -> Iterator[Window]:
        in_chunks = self.protocol == "llama-chunks"
        return chunks(length, self.window) if in_chunks else windows(length, self.window, self.stride)


def token_streams(tokenizer: Tokenizer, documents: Sequence[Document], protocol: Protocol) -> list[list[int]]:
    """The token ids to read: one list for each document under `document`, else one in all.

    Under `sliding` documents are parted by the begin token, under `llama-chunks` by nothing.

    Raises:
        InvalidValueError: the model has no token that begins a document, and the protocol needs one.
    """
    start = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
    begin = [] if start is None else [start]
    lead = begin if tokenizer.add_bos else []
    if protocol == "llama-chunks":
        return [lead + tokenizer.encode("".join(document.text for document in documents))]
    texts = [tokenizer.encode(document.text) for document in documents]
    if protocol == "sliding":
        parts = [part for ids in texts for part in (begin, ids)][1:]
        return [lead + list(itertools.chain.from_iterable(parts))]
    if not begin:
        raise InvalidValueError("the model has no begin or end-of-text token; measure it with --protocol sliding")
    return [begin + ids for ids in texts]
