"""Converted and quantized files: made once, checked, kept in the cache under their content and scheme."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from codellm._version import __version__
from codellm.artifacts import store
from codellm.artifacts.calibration import Calibration, bundled
from codellm.artifacts.request import Artifact, QuantizeRequest
from codellm.artifacts.store import CacheEntry, Kept
from codellm.errors import (
    ArtifactError,
    CodellmError,
    InvalidValueError,
    QualityError,
    UnknownNameError,
    message,
    shown,
)
from codellm.plugins.guard import blame
from codellm.plugins.manager import describe, manager
from codellm.progress import Progress, quiet, tell_licence
from codellm.scheme import PRECISIONS, Scheme, is_quantized
from codellm.sources import ModelSource
from codellm.sources.local import read_directory

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of where it is written to, not of the plugin that writes."""


class RefusedError(QualityError):
    """An artifact that the gate refused; `manifest` is what it would have been kept with."""

    def __init__(self, message: str, manifest: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.manifest = manifest


def ensure(
    source: ModelSource,
    scheme: Scheme,
    *,
    threads: int | None = None,
    calibration: Calibration | None = None,
    progress: Progress = quiet,
    planned: bool = False,
    measure: Callable[[ModelSource], float] | None = None,
) -> ModelSource:
    """`source` in a file scheme: from the cache, else made, checked by the quality gate and kept.

    Where the scheme does not take the source's format, the lossless precision of the source is made first, and is an
    artifact like any other. `calibration` is what the scheme is fitted to instead of the bundled text. `planned` tells
    that `plan` was called already. The gate tells bits per byte by `measure`, which is `quality.measure` by default.

    Raises:
        InvalidValueError: the source is quantized already, no scheme leads from its format to this one, or the scheme
            takes no calibration text.
        ArtifactError: the file cannot be written.
        RefusedError: the gate refused it.
    """
    require_original(source)
    calibration = _calibration(scheme, calibration)
    entry = _entry(source, scheme, calibration)
    kept = entry.sound()
    if kept is None:
        if entry.kept() is not None:
            progress(f"{source.name}: its file in {scheme.name} is not as it was made; making it again", 0, 0)
        lossless = base_scheme(source, scheme)
        if not planned:
            plan(source, scheme, calibration=calibration, progress=progress)
        base = source
        if lossless is not None:
            base = ensure(source, lossless, threads=threads, progress=progress, measure=measure)
        with entry.lock():
            kept = entry.sound() or _make(entry, source, base, scheme, threads, calibration, progress, measure)
    return _as_source(source, Artifact(path=kept.path, scheme=scheme.name, format=scheme.format))


def require_original(source: ModelSource) -> None:
    """Refuse a source that has lost precision: quantizing it anew would add a second loss under the name of one.

    Raises:
        InvalidValueError: it has.
    """
    if is_quantized(source.scheme):
        raise InvalidValueError(f"{source.name}: already quantized ({source.scheme}); start from its original weights")


def base_scheme(source: ModelSource, scheme: Scheme) -> Scheme | None:
    """The lossless scheme of `source` that `scheme` is made from; None where it takes the source as it is.

    Raises:
        InvalidValueError: no scheme leads from the source's format to this one.
    """
    if source.format in scheme.takes:
        return None
    from codellm.plugins.registry import registry

    base: Scheme | None = None
    with contextlib.suppress(UnknownNameError):
        base = registry().scheme(PRECISIONS.get(source.dtype, ""))
    if base is None or source.format not in base.takes or base.format not in scheme.takes:
        taken = ", ".join(sorted(scheme.takes)) or "no file"
        raise InvalidValueError(
            f"{source.name}: scheme {scheme.name} is made from {taken}, and nothing leads there from "
            f"{source.format} in {source.dtype}"
        )
    return base


def plan(
    source: ModelSource, scheme: Scheme, *, calibration: Calibration | None = None, progress: Progress = quiet
) -> None:
    """Remark on what differs of `source` in a file scheme from what the scheme's name says, with nothing written yet.

    Raises:
        CodellmError: it cannot be made.
    """
    plugins = manager()
    with _named(f"{source.name}: planning it in {scheme.name}"):
        fitted = _calibration(scheme, calibration) is not None
        told = plugins.hook.codellm_quantize_plan(source=source, scheme=scheme, fitted=fitted)
        remarks = [remark for some in told for remark in ((some,) if isinstance(some, str) else some)]
    for remark in remarks:
        progress(f"{source.name}: {remark}", 0, 0)


def find_kept(source: ModelSource, scheme: Scheme, calibration: Calibration | None = None) -> Kept | None:
    """The artifact of `source` in `scheme`, if it is in the cache and as it was made.

    Raises:
        InvalidValueError: the scheme takes no calibration text.
    """
    return _entry(source, scheme, _calibration(scheme, calibration)).sound()


def _calibration(scheme: Scheme, asked: Calibration | None) -> Calibration | None:
    """The calibration text that enters a file: what is asked for, else the bundled one where the scheme wants any."""
    if asked is not None and not scheme.takes_calibration:
        raise InvalidValueError(f"scheme {scheme.name} takes no calibration text")
    return asked or (bundled() if scheme.calibration in {"wants", "needs"} else None)


def _entry(source: ModelSource, scheme: Scheme, calibration: Calibration | None) -> CacheEntry:
    return CacheEntry(
        source.name, scheme.name, (source.digest, *([calibration.digest] if calibration is not None else ()))
    )


def _make(
    entry: CacheEntry,
    source: ModelSource,
    base: ModelSource,
    scheme: Scheme,
    threads: int | None,
    calibration: Calibration | None,
    progress: Progress,
    measure: Callable[[ModelSource], float] | None,
) -> Kept:
    from codellm.artifacts import quality

    measure = measure or quality.measure
    tell_licence(source.name, source.licence, progress)
    manifest: dict[str, Any] = {}
    with entry.making(manifest) as directory, _unnamed(directory, f"{source.name} in {scheme.name}"):
        request = QuantizeRequest(
            source=base,
            scheme=scheme,
            destination=directory
            / (entry.title if scheme.format == "safetensors" else f"{entry.title}.{scheme.format}"),
            threads=threads,
            calibration=calibration,
            progress=lambda done, total: progress(f"writing {scheme.name}", done, total),
        )
        start = time.monotonic()
        artifact = _written(request)
        manifest.update(
            artifact.facts,
            source=source.name,
            source_digest=source.digest,
            revision=source.revision,
            licence=source.licence,
            dummy=source.dummy,
            scheme=scheme.name,
            format=scheme.format,
            file=artifact.path.name,
            bytes=store.size(artifact.path),
            seconds=round(time.monotonic() - start, 1),
            codellm=__version__,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if calibration is not None:
            manifest["calibration"] = {"text": calibration.name, "sha256": calibration.digest}
        if not source.dummy:
            progress(f"checking {scheme.name}", 0, 1)
            reference = _reference(base, measure) if scheme.bound is not None else None
            bits_per_byte = round(measure(_as_source(source, artifact)), 5)
            figures = quality.GateFigures(bits_per_byte, reference, scheme.bound)
            manifest["quality"] = attrs.asdict(figures)
            if figures.fault:
                raise RefusedError(f"{source.name}: {scheme.name} {figures.fault}", manifest)
            progress(f"checking {scheme.name}", 1, 1)
    kept = entry.kept()
    assert kept is not None  # just written
    return kept


def _written(request: QuantizeRequest) -> Artifact:
    """Have a plugin do what is requested, and see that it did."""
    plugins, scheme = manager(), request.scheme.name
    with _named(f"{request.source.name}: writing it in {scheme}"):
        artifact: Any = plugins.hook.codellm_quantize(request=request)
    if artifact is None:
        raise UnknownNameError("scheme", scheme, (), "No installed plugin writes it.")
    if fault := _fault(artifact, request):
        raise ArtifactError(
            f"{request.source.name}: writing it in {scheme} {fault}; report it to the plugin's author "
            f"({plugins.implementers('codellm_quantize')})"
        )
    made: Artifact = artifact
    return made


def _fault(artifact: Any, request: QuantizeRequest) -> str:
    """Why what a plugin gave back is not the artifact that was requested; empty where it is."""
    if not isinstance(artifact, Artifact):
        return f"gave {type(artifact).__name__}, not an Artifact"
    if artifact.path != request.destination or not request.destination.exists():
        return "left no file where it was asked for"
    if (artifact.scheme, artifact.format) != (request.scheme.name, request.scheme.format):
        return f"gave {shown(artifact.scheme)} in {shown(artifact.format)}"
    try:
        json.dumps(dict(artifact.facts), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"gave facts that are no JSON ({message(error)})"
    return ""


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """A fault of a plugin in the block is an error that says what failed, and whose fault it is."""
    try:
        yield
    except (CodellmError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        raise ArtifactError(f"{what} failed: {describe(error)}{blame(error)}") from error


@contextlib.contextmanager
def _unnamed(directory: Path, what: str) -> Iterator[None]:
    """A fault of a file in `directory` says what the file is: its name there is gone with it."""
    try:
        yield
    except CodellmError as error:
        told = str(error)
        if str(directory) not in told:
            raise
        words = (what if str(directory) in word else word for word in re.split(r"(\s|:(?=\s))", told))
        raise ArtifactError("".join(words)) from error


def _reference(base: ModelSource, measure: Callable[[ModelSource], float]) -> float:
    """Bits per byte of what a scheme is made from: the gate's own figure where it is an artifact, else measured."""
    kept = store.read(base.path.parent) if base.path is not None else None
    figures = kept.manifest.get("quality") if kept else None
    return float(figures["bits_per_byte"]) if figures else measure(base)


def _as_source(source: ModelSource, made: Artifact) -> ModelSource:
    """What `made` holds, under the name and the digest of what it was made from."""
    digest = source.digest
    if made.path.is_dir():
        checkpoint = read_directory(made.path, source.name, revision=source.revision, licence=source.licence)
        return attrs.evolve(checkpoint, scheme=made.scheme, dummy=source.dummy, digest=digest)
    return attrs.evolve(
        source,
        format=made.format,
        path=made.path,
        files=(made.path,),
        scheme=made.scheme,
        tensors=None,
        digest=digest,
    )
