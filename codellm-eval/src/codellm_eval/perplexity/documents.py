"""Texts to measure a model on: the held-out corpus that ships with the package, or a file of the user's."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import attrs

from codellm.errors import InputError

HELDOUT = "heldout"
"""The name of the shipped corpus, in tables and on the command line."""


@attrs.frozen
class Document:
    """A text; `name` says where it is from."""

    name: str
    text: str

    @property
    def size(self) -> int:
        """UTF-8 bytes."""
        return len(self.text.encode("utf-8"))


def heldout_documents() -> tuple[Document, ...]:
    """The shipped corpus: permissively licensed Python that `codellm-demo` was not trained on; see data/HELDOUT.md.

    Raises:
        InputError: it is missing from this installation, or broken.
    """
    source = files("codellm_eval").joinpath("data", "heldout.jsonl")
    remedy = "reinstall codellm-eval, or give a text file"
    try:
        lines = [json.loads(line) for line in source.read_text("utf-8").split("\n") if line.strip()]
        documents = tuple(Document(f"{line['package']}/{line['path']}", line["text"]) for line in lines)
    except FileNotFoundError as error:
        raise InputError(f"{source}: the held-out corpus is missing from this installation; {remedy}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source}: the held-out corpus is broken ({error}); {remedy}") from error
    return documents


def file_document(path: Path) -> Document:
    """A text file as one document.

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a text file") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is not UTF-8 ({error.reason}); convert the file first, with iconv perhaps"
        ) from error
    if not text:
        raise InputError(f"{path}: the file is empty, there is nothing to measure; give a text file")
    return Document(str(path), text)
