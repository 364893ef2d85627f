"""Where codellm keeps what it made: `CODELLM_CACHE`, else the platform's cache directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import platformdirs

from codellm.errors import ModelFileError

_SAMPLES, _SAMPLE = 16, 4096


def cache_path() -> Path:
    """The directory; it need not exist."""
    named = os.environ.get("CODELLM_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("codellm")


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over the names and contents of `files`.

    A 15 GB model takes ten seconds to read, so a file's digest is remembered by its `state`.

    Raises:
        ModelFileError: a file cannot be read.
    """
    memo = Memo("digests.json")
    known = memo.read()
    total, fresh = hashlib.sha256(), {}
    for file in sorted(files, key=lambda file: file.name):
        try:
            key = state(file)
            if key not in known:
                with file.open("rb") as stream:
                    known[key] = fresh[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ModelFileError(f"{file}: cannot be read ({error.strerror})") from error
        total.update(f"{file.name}\0{known[key]}\n".encode())
    if fresh:
        memo.keep(fresh)
    return total.hexdigest()


def state(file: Path) -> str:
    """What tells a file's content from an earlier or another one without reading all of it.

    Size, time of change and inode, which nobody sets back as one does the time of modification, and a hash of samples
    from all over it, 64 KB in all: under a millisecond once they were read. It stays when a folder above is moved.

    Raises:
        OSError: the file cannot be read.
    """
    stat = file.stat()
    sampled = hashlib.sha256()
    with file.open("rb") as stream:
        for number in range(_SAMPLES):
            stream.seek(max(0, stat.st_size - _SAMPLE) * number // (_SAMPLES - 1))
            sampled.update(stream.read(_SAMPLE))
    parts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sampled.hexdigest())
    return "|".join(map(str, parts))


class Memo:
    """Texts by key in a JSON file of the cache. Best effort: what cannot be kept is found out again next time."""

    def __init__(self, name: str, most: int = 10_000) -> None:
        self._path, self._most = cache_path() / name, most

    def read(self) -> dict[str, str]:
        """All that is kept; nothing where the file is no such memo."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(key): str(text) for key, text in found.items()} if isinstance(found, dict) else {}

    def keep(self, found: Mapping[str, str]) -> None:
        """Keep `found`, and of what was kept before the newest."""
        kept = [*self.read().items(), *found.items()][-self._most :]
        keep_file(self._path, json.dumps(dict(kept)).encode())


def keep_file(path: Path, data: bytes) -> None:
    """Keep `data` in a file of the cache, whole or not at all. Best effort, as `Memo` is."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
