"""How much of the disk a sample holds, where no file system of its own limits it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_GONE = " (deleted)"


def more_than(size: int, files: int, folder: Path, processes: Iterable[int], largest: int) -> bool:
    """Whether the files below `folder`, and those without a name that `processes` hold, are more than `files`, or
    larger together than `size` bytes. None is larger than `largest`, which a file counts whose size nobody tells.
    """
    unnamed: dict[int, int] = {}
    for process in processes:
        unnamed |= dict.fromkeys(_mapped(process, folder), largest)
    for process in processes:
        unnamed |= _opened(process, folder.stat().st_dev)
    files, size = files - len(unnamed), size - sum(unnamed.values())
    folders = [folder]
    while folders and files >= 0 and size >= 0:
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
    return files < 0 or size < 0


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _mapped(process: int, folder: Path) -> Iterator[int]:
    """The inode numbers of files below `folder` that have no name any more and lie in the memory of a process."""
    try:
        lines = Path(f"/proc/{process}/maps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(f"{folder}/") and fields[5].endswith(_GONE):
            yield int(fields[4])


def _opened(process: int, device: int) -> dict[int, int]:
    """Sizes of the files of a device that have no name any more and that a process has open, by inode number."""
    found = {}
    try:
        for entry in os.scandir(f"/proc/{process}/fd"):
            status = entry.stat()  # of what it leads to
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev == device:
                found[status.st_ino] = status.st_size
    except OSError:  # it has ended, or closed one
        pass
    return found
