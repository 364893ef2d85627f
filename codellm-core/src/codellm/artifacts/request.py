"""What a plugin is asked to write, and what it says that it has written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from codellm.artifacts.calibration import Calibration
from codellm.scheme import Scheme
from codellm.sources import ModelSource


@attrs.frozen(kw_only=True)
class QuantizeRequest:
    """What to write, and where. `progress(done, total)` is told as often as is cheap, in any unit.

    `destination` is a file, or for a scheme of the format "safetensors" a directory, which is not there yet.
    `calibration` is there where the scheme wants or needs a text, or takes one and the user named it.
    """

    source: ModelSource
    scheme: Scheme
    destination: Path
    threads: int | None = None
    calibration: Calibration | None = None
    progress: Callable[[int, int], None] = attrs.field(default=lambda done, total: None)


@attrs.frozen(kw_only=True)
class Artifact:
    """A file or directory that holds a model in a scheme, and what its maker found out, for the manifest (as JSON)."""

    path: Path
    scheme: str
    format: str
    facts: Mapping[str, Any] = attrs.field(factory=dict)
