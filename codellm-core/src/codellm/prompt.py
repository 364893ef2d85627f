"""What a caller gives a model to go on from: text, or token ids."""

from __future__ import annotations

import contextlib
import operator
import reprlib
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from codellm.errors import BackendError, CodellmError, InvalidValueError
from codellm.plugins.guard import blame, named
from codellm.plugins.manager import describe

if TYPE_CHECKING:
    from codellm.model import Model

_NO_IDS = (bytes, bytearray, memoryview, Mapping, AbstractSet)
"""What can be gone through and is no list of ids: bytes would be taken for ids below 256."""


def prompt_ids(model: Model, prompt: str | Seq[int]) -> list[int]:
    """The ids of a prompt, at least one: text is encoded by the model's tokenizer, ids are taken as they are.

    Raises:
        InvalidValueError: the prompt is neither text nor ids, is empty and the model has no token to begin with, holds
            a lone surrogate, or an id is no token.
        BackendError: the model's tokenizer fails on it.
    """
    ids = _encoded(model, prompt) if isinstance(prompt, str) else _whole_numbers(prompt)
    if not ids:
        raise InvalidValueError("the prompt is empty and the model has no token to begin with; give it some text")
    size = model.tokenizer.vocab_size
    wrong = next((id for id in ids if not 0 <= id < size), None)
    if wrong is not None:
        raise InvalidValueError(f"prompt token {wrong} is not in the vocabulary of {size} tokens")
    return ids


def _encoded(model: Model, prompt: str) -> list[int]:
    try:
        return model.tokenizer.prompt_ids(prompt)
    except (CodellmError, KeyboardInterrupt):
        raise
    except BaseException as error:
        who, what = named(model.info.backend), describe(error)
        raise BackendError(f"{who}: its tokenizer failed on the prompt: {what}{blame(error)}") from error


def _whole_numbers(prompt: object) -> list[int]:
    """Those of a list, a tuple, or an array of one dimension."""
    if isinstance(prompt, Iterable) and not isinstance(prompt, _NO_IDS):
        with contextlib.suppress(TypeError):
            ids = list(prompt)
            if not any(isinstance(id, bool) for id in ids):
                return list(map(operator.index, ids))
    raise InvalidValueError(f"a prompt must be text or a list of token ids, not {told(prompt)}")


def told(value: object) -> str:
    """A value as a message shows it: short, in one line, with its type."""
    text = reprlib.repr(value)
    return f"{text if text.isprintable() else ascii(text)} ({type(value).__name__})"
