"""A file of one JSON object a line that grows while a run goes on, and that outlives the run's death at any point."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codellm.errors import InputError
from codellm_eval.files.jsonl import parse_lines
from codellm_eval.files.writing import unwritable


class Journal:
    """Opens or begins the file: `lines` are the objects that it holds, with their numbers; `append` adds one more.

    A line that a killed writer left torn at the end is dropped. The file is locked against a second writer until it is
    closed; one without any line does not stay.

    Raises:
        InputError: it cannot be opened, another process writes it, or a line before the last is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            self._lock()
            self.lines = list(parse_lines(self._whole(), path))
        except BaseException:
            os.close(self._file)
            raise
        self._size = os.fstat(self._file).st_size

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, whole: what follows may be killed.

        Raises:
            InputError: the file takes no more, the disk being full for example; the lines before are kept.
        """
        data = json.dumps(line).encode() + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._file, self._size)
            raise unwritable(self.path, error) from error
        self._size += len(data)

    def clear(self) -> None:
        """Drop every line.

        Raises:
            InputError: the file cannot be changed.
        """
        try:
            os.truncate(self._file, 0)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._size = 0
        self.lines = []

    def close(self) -> None:
        """Give the lock back; an empty file goes."""
        if not self._size:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{self.path}: another run writes it; wait for it, or name another --output") from error
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _whole(self) -> str:
        """The text up to the last line's end; what follows it is taken off the file."""
        try:
            data = self.path.read_bytes()
            end = data.rfind(b"\n") + 1
            if end < len(data):
                os.truncate(self._file, end)
            return data[:end].decode("utf-8-sig")
        except OSError as error:
            raise unwritable(self.path, error) from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: byte {error.start} is not UTF-8 ({error.reason})") from error
