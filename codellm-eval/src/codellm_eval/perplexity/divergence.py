"""How far a model's distributions are from those of a reference, over the same passages.

The reference's are kept in a file as float16 log-probabilities. Rounding moves each by up to 2^-11 of its value; since
they are normalized again when they are read, what is compared with is a distribution still, and the Kullback-Leibler
divergence of a model from itself comes out as about 1e-7 nats instead of 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from codellm.errors import InputError
from codellm_eval.errors import refuse_dummy
from codellm_eval.files.writing import write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from codellm.model import Model
    from codellm_eval.perplexity.reading import Passage

Progress = Callable[[int, int], None]
LOWEST = -65504.0
"""The least that float16 holds; a probability of 0 by far."""


@attrs.frozen(kw_only=True)
class Divergence:
    """Distance from the reference.

    `kl` is the mean of KL(reference || model) in nats, `top1` the share of the `tokens` with one likeliest token.
    """

    tokens: int
    kl: float
    top1: float


@attrs.frozen
class ReferenceFile:
    """Distributions before each scored token of some passages: float16 [N, V] at `path`, the rest beside it.

    It takes 2 V bytes a token: 200 MB for 2048 tokens of a vocabulary of 49152.
    """

    path: Path

    @property
    def _facts(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def write(self, model: Model, passages: Sequence[Passage], progress: Progress | None = None) -> None:
        """Keep `model`'s distributions.

        Raises:
            DummyModelError: the weights are random.
            BackendError: the model computed NaN, or other than one distribution for each token.
            OSError: the file cannot be written.
        """
        import numpy as np

        top: list[int] = []
        with self.path.open("wb") as file:
            for rows in _distributions(model, passages, progress):
                top += map(int, rows.argmax(axis=1))
                file.write(np.maximum(rows, LOWEST).astype(np.float16).tobytes())
        facts = {"vocabulary": model.tokenizer.vocab_size, "passages": _digest(passages), "top": top}
        write_whole(self._facts, json.dumps(facts))

    def compare(self, model: Model, passages: Sequence[Passage], progress: Progress | None = None) -> Divergence:
        """How far `model` is from it.

        Raises:
            DummyModelError: the weights are random.
            InputError: there is no such file, or it is of other passages or another vocabulary.
            BackendError: the model computed NaN, or other than one distribution for each token.
        """
        import numpy as np

        facts = self._read_facts()
        size = model.tokenizer.vocab_size
        if (facts["vocabulary"], facts["passages"]) != (size, _digest(passages)):
            raise InputError("the reference row cuts the text into other tokens or windows, so nothing can be paired")
        top = np.array(facts["top"])
        kept = np.memmap(self.path, np.float16, "r", shape=(len(top), size))
        done, total, agreed = 0, 0.0, 0
        for rows in _distributions(model, passages, progress):
            theirs = kept[done : done + len(rows)].astype(np.float32)
            total += float(divergences(theirs, rows).sum())
            agreed += int((rows.argmax(axis=1) == top[done : done + len(rows)]).sum())
            done += len(rows)
        return Divergence(tokens=done, kl=total / done, top1=agreed / done)

    def _read_facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads(self._facts.read_bytes())
        except FileNotFoundError as error:
            raise InputError("the reference row has left no distributions to compare with") from error
        return facts


def divergences(reference: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Divergence KL(reference || rows), in nats, of each row [n, V] of log-probabilities; `reference` is normalized."""
    import numpy as np

    from codellm.sampler import log_softmax

    theirs = log_softmax(reference)
    weights = np.exp(theirs)
    ratios = np.subtract(theirs, rows, where=weights > 0, out=np.zeros_like(theirs))
    found: npt.NDArray[np.float64] = (weights * ratios).sum(axis=1, dtype=np.float64)
    return found


def _distributions(
    model: Model, passages: Sequence[Passage], progress: Progress | None
) -> Iterator[npt.NDArray[np.float32]]:
    """Distributions before each scored token of the passages: blocks [n, V]."""
    refuse_dummy(model.info.dummy, "divergence")
    from codellm.asking import distributions

    total, done = sum(passage.tokens for passage in passages), 0
    for passage in passages:
        yield from distributions(model, passage.ids[:-1], passage.scored - 1)
        done += passage.tokens
        if progress is not None:
            progress(done, total)


def first_tokens(passages: Sequence[Passage], count: int) -> list[Passage]:
    """Passages until `count` of their tokens are scored; the last is cut."""
    kept: list[Passage] = []
    for passage in passages:
        if count <= 0:
            break
        kept.append(attrs.evolve(passage, ids=passage.ids[: passage.scored + count]))
        count -= passage.tokens
    return kept


def _digest(passages: Sequence[Passage]) -> str:
    """Names the tokens that are given and scored."""
    text = json.dumps([[passage.scored, *passage.ids] for passage in passages])
    return hashlib.sha256(text.encode()).hexdigest()
