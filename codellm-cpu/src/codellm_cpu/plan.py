"""What will become of a model in a scheme, told before anything of it is written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from codellm.errors import ArtifactError
from codellm.scheme import PRECISIONS
from codellm_cpu.llama.header import read_header
from codellm_cpu.mixture import mix
from codellm_cpu.schemes import CONVERSIONS, FILE_TYPES

if TYPE_CHECKING:
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource


def remarks(source: ModelSource, scheme: Scheme, *, fitted: bool) -> tuple[str, ...]:
    """What differs from what the scheme's name says of `source`; `fitted` tells whether there is a matrix.

    Raises:
        InvalidValueError: nothing of it would be quantized.
        ModelFileError: it cannot be converted, or llama.cpp refuses it.
    """
    if scheme.name in CONVERSIONS:
        precision = PRECISIONS.get(source.dtype)
        rounded = scheme.name not in ("f32", precision) and not source.dummy
        return (f"{scheme.name}: weights that are stored in {source.dtype} are rounded",) if rounded else ()
    if scheme.name not in FILE_TYPES:
        return ()
    if source.format != "safetensors":
        return told(source, source.files[0], scheme, fitted=fitted) if len(source.files) == 1 else ()
    from codellm_cpu.convert import outline

    try:
        with tempfile.TemporaryDirectory(prefix="codellm-") as folder:
            path = Path(folder) / "outline.gguf"
            outline(source, PRECISIONS.get(source.dtype, "f32"), path)
            return told(source, path, scheme, fitted=fitted)
    except OSError as error:
        raise ArtifactError(f"{tempfile.gettempdir()}: cannot be written ({error.strerror or error})") from error


def told(source: ModelSource, path: Path, scheme: Scheme, *, fitted: bool) -> tuple[str, ...]:
    """The remark of the file at `path`, which holds `source` or its outline."""
    mixture = mix(path, read_header(path), FILE_TYPES[scheme.name], matrix=fitted, name=source.name)
    return (mixture.remark,) if mixture.misfits else ()
