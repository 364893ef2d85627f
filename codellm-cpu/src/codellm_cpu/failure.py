"""Why llama.cpp's quantizer failed, from its log."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from codellm.errors import ArtifactError, ModelFileError
from codellm_cpu.child import Ending
from codellm_cpu.files import amount

FAILURE = re.compile(r"failed to quantize: (.*)")
WRITE_FAILED = "iostream error"
"""What llama.cpp says when a write fails, of which it keeps no reason."""


def failure(path: Path | str, destination: Path, ending: Ending) -> ModelFileError | ArtifactError:
    """What to raise for a child that failed."""
    reasons = [match[1] for line in ending.lines if (match := FAILURE.search(line))]
    if reasons and WRITE_FAILED in reasons[-1]:
        free = shutil.disk_usage(destination.parent).free
        return ArtifactError(
            f"{destination}: cannot be written, {amount(free)} are free there; the partial file is removed"
        )
    if ending.signal:
        return ModelFileError(f"{path}: llama.cpp crashed on it ({ending.signal}): {ending.last}")
    return ModelFileError(f"{path}: llama.cpp cannot quantize it: {reasons[-1] if reasons else ending.last}")
