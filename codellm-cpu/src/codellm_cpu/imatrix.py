"""Importance matrices: what each column of a model's weights is multiplied with, on a calibration text.

A matrix is kept in the cache like an artifact, under the model and the text, and serves every scheme that is fitted to
that text. The file is a .npz: the mean square of each input column, float32, by the weight's name.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from codellm._version import __version__
from codellm.artifacts.store import CacheEntry
from codellm.errors import BackendError
from codellm.system.machine import default_threads
from codellm_cpu.child import Ending, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from codellm.artifacts.calibration import Calibration
    from codellm.artifacts.request import QuantizeRequest
    from codellm.artifacts.store import Kept

KIND = "imatrix"
"""What `codellm models` shows as the scheme of a matrix."""


def matrix(
    request: QuantizeRequest, calibration: Calibration, path: Path, progress: Callable[[int, int], None]
) -> Path:
    """The matrix of the model at `path` on `calibration`: from the cache, else computed; `progress` counts tokens.

    Raises:
        BackendError: llama.cpp cannot compute the text.
        ArtifactError: the cache cannot be written.
    """
    source = request.source
    entry = CacheEntry(source.name, KIND, (source.digest, source.scheme or "", calibration.digest))
    kept = entry.sound()
    if kept is None:
        with entry.lock():
            kept = entry.sound() or _make(entry, request, calibration, path, progress)
    return kept.path


def _make(
    entry: CacheEntry,
    request: QuantizeRequest,
    calibration: Calibration,
    path: Path,
    progress: Callable[[int, int], None],
) -> Kept:
    source, name = request.source, f"{entry.title}.npz"
    manifest = {
        "source": source.name,
        "source_digest": source.digest,
        "dummy": source.dummy,
        "scheme": KIND,
        "file": name,
        "calibration": {"text": calibration.name, "sha256": calibration.digest},
        "codellm": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with entry.making(manifest) as directory:
        text = directory / "calibration.txt"
        text.write_text(calibration.text, "utf-8")
        threads = request.threads or default_threads()
        with running("codellm_cpu.imatrix_child", path.resolve(), text, directory / name, threads) as child:
            for line in child.lines():
                done, _, total = line.strip().partition(" ")
                if done.isdecimal() and total.isdecimal():
                    progress(int(done), int(total))
            ending = child.wait()
        if ending.code:
            raise _failure(path, ending)
    kept = entry.kept()
    assert kept is not None  # just written
    return kept


def _failure(path: Path, ending: Ending) -> BackendError:
    what = f"crashed ({ending.signal})" if ending.signal else "failed"
    return BackendError(f"{path}: computing its importance matrix {what}: {ending.last.removeprefix(f'{path}: ')}")
