"""Files that others wrote: opened only where they are files, and named in one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from codellm.errors import ModelFileError, ModelNotFoundError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

MAX_JSON = 64_000_000
"""Bytes of a JSON file of a model: the index of a model of 100 000 tensors has 10 MB, a tokenizer.json 33."""

_POINTER = re.compile(rb"version https?://(git-lfs|hawser)\.github\.com/spec/")
"""How what stands in place of a file in LFS begins (git-lfs/git-lfs, docs/spec.md; hawser was its first name)."""


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, and nothing but a file: opening a pipe waits for a writer, opening a device may act.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        ModelFileError: it is no regular file, cannot be read, or is git-lfs's pointer to a file.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise ModelFileError(f"{shown(path)}: cannot be read, it is {_KINDS.get(kind, 'no file')}, not a file")
        # without blocking: what was a file a moment ago may be a pipe by now
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            if _POINTER.match(stream.peek(64)):
                raise ModelFileError(
                    f"{shown(path)}: is git-lfs's pointer to the file, not the file itself; "
                    "run `git lfs pull` in its repository, or download it again"
                )
            yield stream
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{shown(path)}: no such file") from error
    except OSError as error:
        raise ModelFileError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error


def read_regular(path: Path, most: int) -> bytes:
    """A file's first `most` bytes, or all where it has fewer.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        ModelFileError: see `open_regular`.
    """
    with open_regular(path) as stream:
        return stream.read(most)


def read_text(path: Path) -> str:
    """The text of a JSON file, UTF-8 of at most `MAX_JSON` bytes; a byte order mark before it is no part of it.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        ModelFileError: see `open_regular`; or it is longer, or not UTF-8.
    """
    data = read_regular(path, MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise ModelFileError(f"{shown(path)}: longer than {MAX_JSON} bytes, so it is no file of a model")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{shown(path)}: byte {error.start} is not UTF-8 ({error.reason})") from error


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object from a file of a model.

    Raises:
        ModelFileError: it cannot be read, or is no JSON object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{shown(path)}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{shown(path)}: not a JSON object but a {type(value).__name__}")
    return value


def shown(text: Path | str) -> str:
    """A path or a text as messages show it: in one line, whatever characters it holds."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def quoted(text: str) -> str:
    """A name from a file as messages show it: in quotes, in one line, cut where it is long."""
    return repr(text if len(text) <= 100 else f"{text[:99]}…")
