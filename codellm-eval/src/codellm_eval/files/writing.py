"""Files that are written whole or not at all, and whether there will be room for any."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from codellm.errors import InputError
from codellm.system.disk import try_writing


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file of UTF-8 or bytes; whoever looks, after a kill too, finds the earlier one or this.

    Raises:
        OSError: it cannot be written, the disk being full for example; the earlier one stays.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())  # some file systems tell only now that the disk is full
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def unwritable(path: Path, error: OSError) -> InputError:
    """What is said where `path`, which --output names, cannot be written."""
    return InputError(f"{path}: cannot be written ({error.strerror}); name another --output")


def refuse_unwritable(folder: Path, path: Path | None = None) -> None:
    """See that files can be written in a folder, there or to be made, before any work begins. Nothing of it stays.

    The message names `path`, the folder where None.

    Raises:
        InputError: they cannot: the file system is read-only or full, or something in the path is no folder.
    """
    try:
        try_writing(folder)
    except OSError as error:
        raise unwritable(path or folder, error) from error
