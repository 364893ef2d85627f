"""Asking a loaded model, and its backend, for what is no generation: what they answer is looked at, on every road.

Whatever a backend raises that is not our own error, or answers that it must not, is a BackendError that names it and
its plugin.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import numpy as np

from codellm.backend import Backend
from codellm.errors import BackendError, shown
from codellm.logprobs import ROUNDING
from codellm.model import Memory, Model
from codellm.plugins.guard import breach, guarded, named
from codellm.result import TokenLogprobs
from codellm.sampler import ranked

if TYPE_CHECKING:
    import numpy.typing as npt


def score(model: Model, batch: Seq[Seq[int]], *, allow_nan: bool = False) -> list[npt.NDArray[np.float32]]:
    """See `Model.score`.

    Raises:
        BackendError: it failed, or gave other than one log-probability for each next token, or NaN.
    """
    name = model.info.backend
    with guarded(name, "while scoring"):
        rows: Any = model.score(batch)
    if not isinstance(rows, list | tuple):
        raise breach(name, f"score() gave {type(rows).__name__}, and must give a list of arrays")
    if len(rows) != len(batch):
        raise breach(name, f"score() of {len(batch)} entries gave {len(rows)}")
    return [
        _checked(model, row, (max(len(ids) - 1, 0),), f"score() of {len(ids)} ids", allow_nan)
        for ids, row in zip(batch, rows, strict=True)
    ]


def distributions(model: Model, ids: Seq[int], start: int = 0) -> Iterator[npt.NDArray[np.float32]]:
    """See `Model.distributions`.

    Raises:
        BackendError: it failed, or gave other than a row of log-probabilities for each of `ids[start:]`, or NaN.
    """
    name, size, expected = model.info.backend, model.tokenizer.vocab_size, len(ids) - start
    what = f"distributions() of {len(ids)} ids from {start} on"
    with guarded(name, "while scoring"):
        blocks: Any = iter(model.distributions(ids, start))
    rows = 0
    while True:
        with guarded(name, "while scoring"):
            block: Any = next(blocks, None)
        if block is None:
            break
        rows += len(block) if isinstance(block, np.ndarray) and block.ndim else 1
        if rows > expected:
            break
        count = len(block) if isinstance(block, np.ndarray) and block.ndim == 2 else 1
        yield _checked(model, block, (count, size), what, allow_nan=False)
    if rows != expected:
        raise breach(name, f"it gave {rows} distributions for {expected} ids")


def prompt_logprobs(model: Model, ids: Seq[int], top: int) -> list[TokenLogprobs]:
    """What the model tells of each of `ids` but the first, after those before it, with so many of the likeliest beside.

    Raises:
        BackendError: see `score` and `distributions`.
    """
    if len(ids) < 2:
        return []
    if not top:
        (row,) = score(model, [ids])
        return [TokenLogprobs(id, float(logprob), ()) for id, logprob in zip(ids[1:], row, strict=True)]
    rows = itertools.chain.from_iterable(distributions(model, ids[:-1]))
    return [_told(id, row, top) for id, row in zip(ids[1:], rows, strict=True)]


def _told(id: int, row: npt.NDArray[np.float32], top: int) -> TokenLogprobs:
    """Of a token where `row` [V] are the log-probabilities."""
    return TokenLogprobs(id, float(row[id]), tuple((one, float(row[one])) for one in ranked(row, top)))


def memory(model: Model) -> Memory:
    """See `Model.memory`.

    Raises:
        BackendError: it failed, or gave no Memory.
    """
    name = model.info.backend
    with guarded(name, "while counting its memory"):
        found: Any = model.memory()
    if not isinstance(found, Memory):
        raise breach(name, f"memory() gave {type(found).__name__}, and must give a Memory")
    return found


def bandwidth(backend: Backend, device: str) -> float | None:
    """See `Backend.bandwidth`.

    Raises:
        BackendError: it failed, or gave no number of bytes per second.
    """
    with guarded(backend.name, "while measuring the bandwidth"):
        found: Any = backend.bandwidth(device)
    if found is None:
        return None
    if not isinstance(found, numbers.Real) or not 0 < float(found) < math.inf:
        raise breach(backend.name, f"bandwidth() gave {shown(found)}, and must give bytes per second, or None")
    return float(found)


def _checked(model: Model, found: Any, shape: tuple[int, ...], what: str, allow_nan: bool) -> npt.NDArray[np.float32]:
    """`found`, if it holds natural-log probabilities of this shape."""
    name = model.info.backend
    if not isinstance(found, np.ndarray) or found.dtype not in (np.float32, np.float64):
        kind = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
        raise breach(name, f"{what} gave {kind}, and must give float32 {list(shape)}")
    if found.shape != shape:
        raise breach(name, f"{what} gave float32 {list(found.shape)}, and must give float32 {list(shape)}")
    greatest = float(found.max(initial=-math.inf))
    if greatest > ROUNDING:
        raise breach(name, f"{what} gave {greatest:g}, and a log-probability is at most 0")
    if math.isnan(greatest) and not allow_nan:
        raise BackendError(f"{named(name)} computed NaN with {model.info.scheme} weights; the model is broken")
    array: npt.NDArray[np.float32] = found.astype(np.float32, copy=False)
    return array
