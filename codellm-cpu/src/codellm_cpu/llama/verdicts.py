"""What probes found, kept between processes: a file is tried once, until it changes."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from codellm.errors import ModelFileError
from codellm.sources.regular import shown

_MOST = 500
"""Verdicts that are kept, the newest."""


def file_key(path: Path) -> str:
    """A file as it is now, and the llama.cpp that tries it.

    The time of change stands beside that of modification, which anybody may set back.

    Raises:
        ModelFileError: the file is gone.
    """
    import llama_cpp

    try:
        stat, real = path.stat(), path.resolve()
    except (OSError, RuntimeError) as error:  # the second for symbolic links in a circle
        raise ModelFileError(f"{shown(path)}: cannot be read ({error})") from error
    return f"{real}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}|{llama_cpp.__version__}"


class Verdicts:
    """Faults by file, empty for a file without one. Best effort: what cannot be kept is found again next time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> str | None:
        """The fault of a file, None where no verdict is kept."""
        return self._read().get(key)

    def keep(self, key: str, fault: str) -> None:
        """Keep a verdict, and the newest others."""
        kept = [*self._read().items(), (key, fault)][-_MOST:]
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(dict(kept)))
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(key): str(fault) for key, fault in found.items()} if isinstance(found, dict) else {}
