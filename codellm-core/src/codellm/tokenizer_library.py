"""The tokenizers library as it is used here: ids of whole texts, and an error in one line for whatever it raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from codellm.errors import CodellmError, ModelFileError
from codellm.sources.regular import shown

if TYPE_CHECKING:
    import tokenizers

LINE = 500
"""Characters of what the library says that a message shows."""


def opened(text: str) -> tokenizers.Tokenizer:
    """A tokenizer.json's text on the library, which gives the ids of a whole text: neither cut nor padded."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@contextlib.contextmanager
def surviving(what: str) -> Iterator[None]:
    """For calls of the tokenizers library: what it raises becomes one line that begins with `what`.

    Its panics are `pyo3_runtime.PanicException`, which nobody can import and which is no Exception.

    Raises:
        ModelFileError: it raised.
    """
    try:
        yield
    except CodellmError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = shown(str(error) or type(error).__name__)[:LINE]
        raise ModelFileError(f"{what} ({said})") from error
