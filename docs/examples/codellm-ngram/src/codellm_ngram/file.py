"""A table in a file: the format `ngram`, numpy's npz with the two arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from codellm import Artifact, QuantizeRequest
from codellm.errors import ModelFileError
from codellm_ngram.backend import SCHEME
from codellm_ngram.table import Table, read_folder


def quantize(request: QuantizeRequest) -> Artifact | None:
    """Write the request's folder as a table of short contexts; None for a scheme of another plugin."""
    if request.scheme.name != SCHEME.name:
        return None
    table = read_folder(request.source.files)
    with request.destination.open("wb") as file:
        np.savez(file, contexts=(table.contexts >> 32).astype(np.uint32), following=table.following)
    return Artifact(path=request.destination, scheme=SCHEME.name, format=SCHEME.format)


def read_table(path: Path) -> Table:
    """The table in a file.

    Raises:
        ModelFileError: it holds none.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            contexts, following = arrays["contexts"], arrays["following"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path}: holds no n-gram table ({error})") from error
    if contexts.dtype != np.uint32 or following.dtype != np.uint16 or not contexts.shape == following.shape != (0,):
        raise ModelFileError(f"{path}: its arrays are not those of an n-gram table")
    return Table(contexts, following)
