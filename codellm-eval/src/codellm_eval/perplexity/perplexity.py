"""Perplexity and bits per byte, under protocols that a table must never mix; `reading` says what each one is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from codellm_eval.errors import refuse_dummy
from codellm_eval.perplexity.reading import Passage, Protocol, Reading
from codellm_eval.perplexity.scored import Scored, bits_per_byte

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from codellm.model import Model
    from codellm_eval.perplexity.documents import Document

Progress = Callable[[int, int], None]


@attrs.frozen(kw_only=True)
class Perplexity:
    """What was measured. `nll` is the sum of -ln p over the `tokens` scored, `squares` that of its squares.

    `bytes` is the UTF-8 size of the text, `each` holds the documents under the protocol `document`.
    """

    reading: Reading
    documents: int
    tokens: int
    bytes: int
    nll: float
    squares: float
    each: tuple[Scored, ...] = ()

    @property
    def perplexity(self) -> float:
        """Exponential of the mean nll of a token; infinite where that overflows."""
        mean = self.nll / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def error(self) -> float | None:
        """The standard error of `perplexity` as llama-perplexity tells it: as if tokens were drawn independently.

        None under the other protocols, and where a single token was scored.
        """
        if self.reading.protocol != "llama-chunks" or self.tokens < 2:
            return None
        variance = self.squares / self.tokens - (self.nll / self.tokens) ** 2
        return self.perplexity * math.sqrt(max(0.0, variance) / (self.tokens - 1))

    @property
    def bits_per_byte(self) -> float | None:
        """Bits of the nll over bytes; None under the other protocols, where some of the bytes are not scored."""
        return bits_per_byte(self.each) if self.reading.protocol == "document" else None


def measure(
    model: Model,
    documents: Sequence[Document],
    *,
    protocol: Protocol = "document",
    window: int | None = None,
    stride: int | None = None,
    progress: Progress | None = None,
) -> Perplexity:
    """Score `documents`; `window` and `stride` are in tokens, as usual for the protocol where None.

    Passages are scored `batch_size` at a time. `progress` gets the tokens read so far and in all.

    Raises:
        DummyModelError: the weights are random.
        InvalidValueError: `window` or `stride` is out of range.
        InputError: the documents hold no token to score.
        BackendError: the model computed NaN, or other than one score for each token.
    """
    refuse_dummy(model.info.dummy, "perplexity")
    reading = Reading.of(protocol, model.info.context_length, window, stride)
    passages = reading.passages(model.tokenizer, documents)
    scores = score_passages(model, passages, progress)
    nlls = [-row.astype("float64") for row in scores]
    return Perplexity(
        reading=reading,
        documents=len(documents),
        tokens=sum(passage.tokens for passage in passages),
        bytes=sum(document.size for document in documents),
        nll=math.fsum(float(row.sum()) for row in nlls),
        squares=math.fsum(float(row @ row) for row in nlls),
        each=_each(documents, passages, nlls) if protocol == "document" else (),
    )


def score_passages(
    model: Model, passages: Sequence[Passage], progress: Progress | None = None
) -> list[npt.NDArray[np.float32]]:
    """Log-probabilities (natural) of each passage's scored tokens.

    Raises:
        BackendError: the model computed NaN, or other than one score for each token.
    """
    from codellm.asking import score

    total, done = sum(len(passage.ids) for passage in passages), 0
    size = max(1, model.info.batch_size)
    found = []
    for start in range(0, len(passages), size):
        batch = passages[start : start + size]
        rows = score(model, [passage.ids for passage in batch])
        found += [row[passage.scored - 1 :] for row, passage in zip(rows, batch, strict=True)]
        done += sum(len(passage.ids) for passage in batch)
        if progress is not None:
            progress(done, total)
    return found


def _each(
    documents: Sequence[Document], passages: Sequence[Passage], nlls: Sequence[npt.NDArray[np.float64]]
) -> tuple[Scored, ...]:
    sums = [0.0] * len(documents)
    tokens = [0] * len(documents)
    for passage, nll in zip(passages, nlls, strict=True):
        sums[passage.document] += float(nll.sum())
        tokens[passage.document] += passage.tokens
    return tuple(
        Scored(name=document.name, bytes=document.size, tokens=count, nll=nll)
        for document, count, nll in zip(documents, tokens, sums, strict=True)
    )
