"""Writing a large file: enough room first, nothing half-written after."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from codellm.errors import ArtifactError, CodellmError


@contextlib.contextmanager
def writing(destination: Path, size: int) -> Iterator[None]:
    """Watch over the writing of `destination`, about `size` bytes: remove it if anything ends that, Ctrl-C too.

    Raises:
        ArtifactError: there is no room for `size` bytes, or the system refuses a write.
    """
    try:
        require_room(destination, size)
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            destination.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, CodellmError):
            reason = error.strerror or str(error)
            raise ArtifactError(f"{destination}: cannot be written ({reason}); the partial file is removed") from error
        raise


def require_room(destination: Path, size: int) -> None:
    """See that `size` bytes fit where `destination` is to be.

    Raises:
        ArtifactError: they do not.
    """
    free = shutil.disk_usage(destination.parent).free
    if free < size:
        raise ArtifactError(
            f"{destination}: needs {amount(size)}, {amount(free)} are free in {destination.parent}; "
            "free some space, or set another cache directory"
        )


def amount(size: int) -> str:
    """Bytes in words, in the unit that suits: `14.35 GB`, `28.1 MB`."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
