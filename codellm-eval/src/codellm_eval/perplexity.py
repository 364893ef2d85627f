"""Perplexity and bits per byte, under two protocols that a table must never mix.

`sliding`: the documents are one stream of tokens; the first has no context and is not scored. This is the protocol of
Hugging Face's guide "Perplexity of fixed-length models" (docs/transformers/perplexity), and what most published
perplexities mean.

`document`: each document by itself, after the token that begins a document in training, so that every token of it is
scored. Only here do bits per byte have an exact meaning, and they alone compare models with different tokenizers.

In both a text longer than the window is read through a window that moves by `stride`; each token is scored once, by
the first window that holds it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import attrs

from codellm.errors import BackendError, InputError, InvalidValueError
from codellm_eval.errors import refuse_dummy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from codellm.model import Model
    from codellm.tokenizer import Tokenizer
    from codellm_eval.documents import Document

Protocol = Literal["sliding", "document"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
WINDOW = 1024
"""Tokens; long enough for the files of a corpus, short enough for every model that is compared."""

Progress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class Perplexity:
    """What was measured. `nll` is the sum of -ln p over the `tokens` scored, `bytes` the UTF-8 size of the text."""

    protocol: Protocol
    window: int
    stride: int
    documents: int
    tokens: int
    bytes: int
    nll: float

    @property
    def perplexity(self) -> float:
        """Exp of the mean nll of a token; infinite where that overflows."""
        mean = self.nll / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Nll in bits over bytes; None under `sliding`, where some of the bytes are not scored."""
        return self.nll / math.log(2) / self.bytes if self.protocol == "document" else None


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


def measure(
    model: Model,
    documents: Sequence[Document],
    *,
    protocol: Protocol = "document",
    window: int | None = None,
    stride: int | None = None,
    progress: Progress | None = None,
) -> Perplexity:
    """Score `documents`; `window` is in tokens (1024 or the context where None), `stride` half of it where None.

    `progress` gets the tokens read so far and in all.

    Raises:
        DummyModelError: the weights are random.
        InvalidValueError: not 2 <= window <= context, or not 1 <= stride < window.
        InputError: the documents hold no token to score.
        BackendError: the model computed NaN, or other than one score for each token.
    """
    refuse_dummy(model.info.dummy, "perplexity")
    window, stride = window_and_stride(model.info.context_length, window, stride)
    texts = token_streams(model.tokenizer, documents, protocol)
    jobs = [(ids, part) for ids in texts for part in windows(len(ids), window, stride)]
    if not jobs:
        raise InputError("the text has no token to score; give a longer one")
    total = sum(part.end - part.begin for _, part in jobs)
    done, sums = 0, []
    size = max(1, model.info.batch_size)
    for place in range(0, len(jobs), size):
        batch = jobs[place : place + size]
        scores = model.score([ids[part.begin : part.end] for ids, part in batch])
        sums += [_nll(row, part, model) for row, (_, part) in zip(scores, batch, strict=True)]
        done += sum(part.end - part.begin for _, part in batch)
        if progress is not None:
            progress(done, total)
    return Perplexity(
        protocol=protocol,
        window=window,
        stride=stride,
        documents=len(documents),
        tokens=sum(part.end - part.scored for _, part in jobs),
        bytes=sum(document.size for document in documents),
        nll=math.fsum(sums),
    )


def window_and_stride(context: int, window: int | None, stride: int | None) -> tuple[int, int]:
    """The window and stride to use, checked.

    Raises:
        InvalidValueError: one is out of its range; the message names it.
    """
    window = min(WINDOW, context) if window is None else window
    if not 2 <= window <= context:
        raise InvalidValueError(f"--window must be from 2 to the context's {context} tokens, not {window}")
    stride = window // 2 if stride is None else stride
    if not 1 <= stride < window:
        # A stride of the whole window would leave the first token of each without context, unscored.
        raise InvalidValueError(f"--stride must be from 1 to {window - 1}, one less than the window, not {stride}")
    return window, stride


def token_streams(tokenizer: Tokenizer, documents: Sequence[Document], protocol: Protocol) -> list[list[int]]:
    """The token ids to read: one list for each document, or one in all, documents parted by the begin token.

    Raises:
        InvalidValueError: the model has no token that begins a document, and the protocol needs one.
    """
    start = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
    begin = [] if start is None else [start]
    texts = [tokenizer.encode(document.text) for document in documents]
    if protocol == "sliding":
        lead = begin if tokenizer.add_bos else []
        parts = [part for ids in texts for part in (begin, ids)][1:]
        return [lead + list(itertools.chain.from_iterable(parts))]
    if not begin:
        raise InvalidValueError("the model has no begin or end-of-text token; measure it with --protocol sliding")
    return [begin + ids for ids in texts]


def _nll(row: npt.NDArray[np.float32], part: Window, model: Model) -> float:
    """The summed -ln p of a window's scored tokens; `row` [T - 1] holds ln p of every token after the first."""
    backend = model.info.backend
    if row.shape != (part.end - part.begin - 1,):
        raise BackendError(f"backend {backend!r} scored {row.shape} for {part.end - part.begin} tokens; report it")
    nll = -float(row[part.scored - part.begin - 1 :].sum(dtype="float64"))
    if math.isnan(nll):
        raise BackendError(f"backend {backend!r} computed NaN with {model.info.scheme} weights; the model is broken")
    return nll
