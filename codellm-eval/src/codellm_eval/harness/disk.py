"""How much of the disk a sample holds, where no file system of its own limits it."""

from __future__ import annotations

import os
from pathlib import Path


def more_than(size: int, files: int, folder: Path) -> bool:
    """Whether the files below `folder` are more than `files`, or larger together than `size` bytes."""
    folders = [folder]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except FileNotFoundError:
            continue
        except OSError:  # nested deeper than a path can name
            return True
        files -= len(entries)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                size -= _size(entry)
        if files < 0 or size < 0:
            return True
    return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
