"""A model string understood, with nothing fetched yet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from codellm.errors import ModelFileError, ModelNotFoundError, UnknownNameError
from codellm.progress import Progress, quiet
from codellm.sources.reference import BUNDLED, Known, Reference

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def find(model: str, known: Callable[[], Known], revision: str | None = None, progress: Progress = quiet) -> Reference:
    """Understand a model string; what has to be fetched later reports to `progress`, and `known` is asked where needed.

    Raises:
        UnknownNameError: a bare name that is neither bundled nor a dummy.
        ModelNotFoundError: a path where nothing is.
        ModelFileError: a file or directory that is no model that anyone takes.
        DownloadError: a hub id whose files cannot be listed.
    """
    if model in BUNDLED:
        from codellm.sources.bundled import bundled

        return bundled(model)
    if model.startswith("dummy:"):
        from codellm.sources.bundled import dummy

        return dummy(model)
    path = Path(os.path.expanduser(model))  # noqa: PTH111 - pathlib's raises where there is no such user
    if os.path.exists(path):  # noqa: PTH110 - pathlib's raises on names that no file can have
        from codellm.sources.local import directory, file

        found = directory(path) if path.is_dir() else file(path)
        if found.fault and not known().takes(found.format):
            raise ModelFileError(found.fault)
        return found
    if HUB_ID.fullmatch(model) and not model.endswith((".gguf", ".safetensors")):
        from codellm.sources.hub import hub

        return hub(model, known, revision, progress)
    if "/" in model or path.suffix:
        raise ModelNotFoundError(f"{model}: no such file or directory")
    from codellm.sources.dummy import CONFIGS

    raise UnknownNameError(
        "model",
        model,
        (*BUNDLED, *(f"dummy:{name}" for name in CONFIGS)),
        "Or give a directory, a .gguf file, or a hub id (organisation/name).",
    )
