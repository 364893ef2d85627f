"""A model string understood, with nothing fetched yet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from codellm.errors import ModelFileError, ModelNotFoundError, UnknownNameError
from codellm.progress import Progress, quiet
from codellm.scheme import Scheme
from codellm.sources.source import ModelSource

BUNDLED = ("codellm-demo",)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@attrs.frozen(kw_only=True)
class Reference:
    """Where a model string points: its format is known before anything is fetched, so that a backend can be chosen."""

    name: str
    format: str
    scheme: str | None
    """The scheme that the string names, as in `hub-id:q4_k_m`."""
    fetch: Callable[[], ModelSource]
    fault: str = ""
    """What is wrong with it where no plugin takes this format."""
    ready: Mapping[str, Reference] = attrs.field(factory=dict)
    """Files of the same model that are in a file scheme already, by the scheme's name: these need not be made."""

    def in_scheme(self, scheme: Scheme | None) -> Reference:
        """What to fetch for a model in `scheme`: the file that is in it already, else what it can be made from."""
        return self.ready.get(scheme.name, self) if scheme is not None else self


def find(model: str, revision: str | None = None, progress: Progress = quiet) -> Reference:
    """Understand a model string; what has to be fetched later reports to `progress`.

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
        if found.fault and not _taken(found.format):
            raise ModelFileError(found.fault)
        return found
    if HUB_ID.fullmatch(model) and not model.endswith((".gguf", ".safetensors")):
        from codellm.sources.hub import hub

        return hub(model, revision, progress)
    if "/" in model or path.suffix:
        raise ModelNotFoundError(f"{model}: no such file or directory")
    from codellm.sources.dummy import SIZES

    raise UnknownNameError(
        "model",
        model,
        (*BUNDLED, *(f"dummy:{name}" for name in SIZES)),
        "Or give a directory, a .gguf file, or a hub id (organisation/name).",
    )


def _taken(format: str) -> bool:
    """Whether some plugin loads this format, or makes another one of it."""
    from codellm.plugins.registry import registry

    known = registry()
    return any(format in backend.formats for backend in known.backends.values()) or any(
        format in scheme.takes for scheme in known.schemes.values()
    )
