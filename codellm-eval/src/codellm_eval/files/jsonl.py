"""Files of one JSON object a line, plain or gzipped, that others wrote: read within bounds, each fault at its line."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codellm.errors import InputError, ModelFileError, ModelNotFoundError
from codellm.sources.regular import read_regular

MOST_BYTES = 1 << 30
"""Unpacked. 200 samples of each of HumanEval's problems are some 100 MB; a gzip file may unpack to a thousand times
its size."""


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The whole text of a UTF-8 file, unpacked where its name ends in `.gz`; a byte order mark is no part of it.

    Raises:
        InputError: it is no regular file, cannot be read or unpacked, is no UTF-8, or holds more than `most` bytes.
    """
    try:
        data = read_regular(path, most + 1)
        if path.suffix == ".gz":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(most + 1)
    except (ModelNotFoundError, ModelFileError) as error:
        raise InputError(str(error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error})") from error
    if len(data) > most:
        raise InputError(f"{path}: holds more than {most >> 20} MiB; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8 ({error.reason})") from error


def parse_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of `text` with the numbers of their lines, counted from 1; empty lines are skipped.

    A line ends at a line feed alone, since a string of JSON may hold any other end of a line. Files that were joined
    may have a byte order mark at the beginning of each.

    Raises:
        InputError: a line is no JSON object; the message names `path` and the line.
    """
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        unmarked = line.removeprefix("\ufeff")
        if not unmarked.strip():
            continue
        try:
            value = json.loads(unmarked)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}: line {number} is no JSON object")
        yield number, value
