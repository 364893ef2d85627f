"""Whether files can be written somewhere, before the work whose outcome they would hold."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_PAGE = 4096
"""Bytes: a full disk refuses the first of them, but not an empty file."""


def try_writing(folder: Path) -> None:
    """Write a page in `folder`, or in the nearest one above it where it is yet to be made. Nothing of it stays.

    Tried, not asked: permissions say nothing of a full or read-only disk, nor of what root may do.

    Raises:
        OSError: no file can be written there, or something in the path is no folder.
    """
    nearest = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    with tempfile.TemporaryFile(dir=nearest) as file:
        file.write(bytes(_PAGE))
        file.flush()
