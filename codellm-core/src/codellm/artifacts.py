"""Converted and quantized files (placeholder, filled in the next commit)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from codellm.scheme import Scheme
from codellm.sources import ModelSource


@attrs.frozen(kw_only=True)
class QuantizeRequest:
    """What to write, and where. `progress(done, total)` is told of bytes of weights written, as often as is cheap."""

    source: ModelSource
    scheme: Scheme
    destination: Path
    threads: int | None = None
    calibration: Path | None = None
    progress: Callable[[int, int], None] = attrs.field(default=lambda done, total: None)


@attrs.frozen(kw_only=True)
class Artifact:
    """A file that holds a model in a scheme."""

    path: Path
    scheme: str
    format: str
