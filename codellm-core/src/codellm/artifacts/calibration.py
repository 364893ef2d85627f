"""The text that a quantization is fitted to."""

from __future__ import annotations

import codecs
import hashlib
from importlib.resources import files
from pathlib import Path

import attrs

from codellm.errors import InputError, ModelFileError, ModelNotFoundError
from codellm.sources.regular import read_regular, shown

MOST = 1 << 20
"""Bytes of a file that are read: far more than the tokens that a quantization looks at."""


@attrs.frozen
class Calibration:
    """A text by the name of where it is from."""

    name: str
    text: str = attrs.field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def bundled() -> Calibration:
    """Modules of codellm 0.1.0, frozen: what the models are for, and the same whatever becomes of the package.

    Some 10000 tokens, none of them among those that the quality gate reads (quality.py).
    """
    return Calibration("codellm", files("codellm").joinpath("data", "calibration.txt").read_text("utf-8"))


def of_file(path: Path) -> Calibration:
    """The text of a file, of which the first MiB counts.

    Raises:
        InputError: it cannot be read, or holds no UTF-8 text.
    """
    try:
        data = read_regular(path, MOST)
        text = codecs.getincrementaldecoder("utf-8")().decode(data)  # may end inside a character
    except (ModelNotFoundError, ModelFileError) as error:
        raise InputError(f"calibration text {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"calibration text {shown(path)}: is no UTF-8 text") from error
    if not text.strip():
        raise InputError(f"calibration text {shown(path)}: is empty")
    return Calibration(path.name, text)
