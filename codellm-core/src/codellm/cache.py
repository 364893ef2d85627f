"""Where codellm keeps what it made: `CODELLM_CACHE`, else the platform's cache directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import platformdirs

from codellm.errors import ModelFileError


def cache_path() -> Path:
    """The directory; it need not exist."""
    named = os.environ.get("CODELLM_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("codellm")


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over the names and contents of `files`.

    A 15 GB model takes ten seconds to read, so a file's digest is remembered by path, size and time of change.

    Raises:
        ModelFileError: a file cannot be read.
    """
    memo_path = cache_path() / "digests.json"
    memo = _read_memo(memo_path)
    total, fresh = hashlib.sha256(), False
    for file in sorted(files, key=lambda file: file.name):
        try:
            stat = file.stat()
            key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
            if key not in memo:
                with file.open("rb") as stream:
                    memo[key] = hashlib.file_digest(stream, "sha256").hexdigest()
                fresh = True
        except OSError as error:
            raise ModelFileError(f"{file}: cannot be read ({error.strerror})") from error
        total.update(f"{file.name}\0{memo[key]}\n".encode())
    if fresh:
        _write_memo(memo_path, memo)
    return total.hexdigest()


def _read_memo(path: Path) -> dict[str, str]:
    try:
        memo = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(item) for key, item in memo.items()} if isinstance(memo, dict) else {}


def _write_memo(path: Path, memo: dict[str, str]) -> None:
    """Best effort: without the memo the next run reads the files again."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(memo))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
