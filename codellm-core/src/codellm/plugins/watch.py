"""Whose code is running: told where it does not come back, and by the next process where it took its own with it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs

from codellm.plugins.entry_points import DISABLE, Entry
from codellm.system.cache import cache_path

PATIENCE = 5.0
"""Seconds that a plugin's code may take before its user is told whose it is."""

_TRACE = ".loading-"

_log = logging.getLogger("codellm")


@contextlib.contextmanager
def watched(entry: Entry) -> Iterator[None]:
    """Run the code of `entry`: what takes longer than `PATIENCE` is told, in a warning, while it goes on.

    Meanwhile a file in the cache names it, which only a process that vanishes leaves behind.
    """
    watchdog = threading.Timer(PATIENCE, _tell, [entry])
    watchdog.daemon = True
    watchdog.start()
    trace = _Trace.leave(entry)
    try:
        yield
    finally:
        if trace is not None:
            trace.remove()
        watchdog.cancel()
        watchdog.join()  # whoever forks next must not find a thread


def tell_vanished() -> None:
    """Warn, once, of the plugins whose code was running when an earlier process vanished."""
    with contextlib.suppress(OSError):
        found = {_take_trace(path).partition("\n") for path in cache_path().glob(f"{_TRACE}*")}
        for name, _, who in sorted(found):
            if who:
                _log.warning("an earlier run ended while %s was loading, and it may be why; %s", who, _remedy(name))


def _tell(entry: Entry) -> None:
    _log.warning(
        "%s has been loading for %.0f s and may never end; Ctrl-C ends this run, %s",
        entry,
        PATIENCE,
        _remedy(entry.name),
    )


def _remedy(name: str) -> str:
    return f"{DISABLE}={name} turns it off"


@attrs.frozen
class _Trace:
    """A file that names a plugin, locked: the lock goes with the process, however that ends."""

    path: Path
    file: int
    made: bool
    """Whether the folder was not there before."""

    @classmethod
    def leave(cls, entry: Entry) -> _Trace | None:
        """Best effort: a cache may be read-only, and a system without such locks."""
        path = cache_path() / f"{_TRACE}{os.urandom(6).hex()}"
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            made = not path.parent.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(file, f"{entry.name}\n{entry}".encode(errors="replace"))
            return cls(path, file, made)
        return None

    def remove(self) -> None:
        """Leave nothing behind; while it is there it is locked, or another process would take it for left behind."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        with contextlib.suppress(OSError):
            os.close(self.file)
            if self.made:
                self.path.parent.rmdir()


def _take_trace(path: Path) -> str:
    """What a trace says whose process is gone, and remove it; empty where the process still runs."""
    with contextlib.suppress(OSError, ImportError):
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by the process that wrote it
            path.unlink()
            return file.read().decode(errors="replace")
    return ""
