"""Where a command is to write: looked at before the work that would be lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

from codellm.errors import ArtifactError
from codellm.system.disk import try_writing


def require_writable(output: Path) -> None:
    """See that a file can be made at `output`, or in it where it is a directory.

    Raises:
        ArtifactError: it cannot; says why.
    """
    fault = _fault(output)
    if fault:
        raise ArtifactError(f"{output}: cannot be written ({fault}); give another --output")


def _fault(output: Path) -> str:
    try:
        if output.is_dir():
            return unwritable(output)
        if output.exists() and not output.is_file():
            return "it is neither a file nor a directory"
        if not output.parent.is_dir():
            return f"there is no directory {output.parent}"
        with tempfile.NamedTemporaryFile(prefix=f".{output.name}.", dir=output.parent):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def unwritable(path: Path) -> str:
    """What keeps a file from being made in `path`, or in the nearest folder above it; empty where nothing does."""
    try:
        try_writing(path)
    except OSError as error:
        return error.strerror or str(error)
    return ""
