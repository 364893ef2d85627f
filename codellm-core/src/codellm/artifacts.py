"""Converted and quantized files: made once, checked, kept in the cache under their content and scheme."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from codellm import plugins
from codellm._version import __version__
from codellm.cache import cache_path
from codellm.errors import ArtifactError, CodellmError, InvalidValueError, UnknownNameError
from codellm.progress import Progress, quiet, tell_licence
from codellm.scheme import Scheme
from codellm.sources import ModelSource

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of the place that is written to, not of the plugin that writes."""

PRECISIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""The lossless scheme of each stored type."""


@attrs.frozen(kw_only=True)
class QuantizeRequest:
    """What to write, and where. `progress(done, total)` is told as often as is cheap, in any unit."""

    source: ModelSource
    scheme: Scheme
    destination: Path
    threads: int | None = None
    calibration: Path | None = None
    progress: Callable[[int, int], None] = attrs.field(default=lambda done, total: None)


@attrs.frozen(kw_only=True)
class Artifact:
    """A file that holds a model in a scheme, and what its maker found out about it, for the manifest (as JSON)."""

    path: Path
    scheme: str
    format: str
    facts: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Kept:
    """An artifact in the cache, and its manifest."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def path(self) -> Path:
        """The model file."""
        return self.directory / str(self.manifest["file"])

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with contextlib.suppress(OSError):
            return self.path.stat().st_size
        return 0


def ensure(
    source: ModelSource,
    scheme: Scheme,
    *,
    threads: int | None = None,
    calibration: Path | None = None,
    progress: Progress = quiet,
) -> ModelSource:
    """`source` in a file scheme: from the cache, else made, checked by the quality gate and kept.

    Where the scheme does not take the source's format, the lossless precision of the source is made first, and is an
    artifact like any other.

    Raises:
        InvalidValueError: no scheme leads from the source's format to this one.
        ArtifactError: the file cannot be written.
        QualityError: the gate refused it.
    """
    kept = _lookup(source, scheme)
    if kept is not None:
        return _as_source(source, kept)
    base = source
    if source.format not in scheme.takes:
        base = ensure(source, _lossless(source, scheme), threads=threads, progress=progress)
    with _lock(source, scheme):
        kept = _lookup(source, scheme) or _make(source, base, scheme, threads, calibration, progress)
    return _as_source(source, kept)


def kept_artifacts() -> list[Kept]:
    """Everything in the cache, by name and scheme."""
    found = [kept for path in _root().glob("*/manifest.json") if (kept := _read(path.parent)) is not None]
    return sorted(found, key=lambda kept: (str(kept.manifest["source"]), str(kept.manifest["scheme"])))


def remove(kept: Kept) -> None:
    """Delete an artifact.

    Raises:
        ArtifactError: it cannot be deleted.
    """
    try:
        shutil.rmtree(kept.directory)
    except OSError as error:
        raise ArtifactError(f"{kept.directory}: cannot be removed ({error.strerror})") from error


def abandoned() -> list[Path]:
    """What processes that were killed while they made an artifact left behind, and nobody is making now."""
    import filelock

    found = []
    for directory in filter(Path.is_dir, _root().glob(".*-*")):
        lock = directory.with_name(f"{directory.name.rpartition('-')[0]}.lock")
        with contextlib.suppress(OSError), filelock.FileLock(lock).acquire(timeout=0):
            found.append(directory)
    return sorted(found)


def _make(
    source: ModelSource,
    base: ModelSource,
    scheme: Scheme,
    threads: int | None,
    calibration: Path | None,
    progress: Progress,
) -> Kept:
    from codellm import quality

    tell_licence(source.name, source.licence, progress)
    final = _directory(source, scheme)
    with _temporary(final) as directory:
        name = f"{_slug(source.name)}-{scheme.name}.{scheme.format}"
        request = QuantizeRequest(
            source=base,
            scheme=scheme,
            destination=directory / name,
            threads=threads,
            calibration=calibration,
            progress=lambda done, total: progress(f"writing {scheme.name}", done, total),
        )
        artifact = _written(request)
        manifest: dict[str, Any] = {
            **artifact.facts,
            "source": source.name,
            "source_digest": source.digest,
            "revision": source.revision,
            "licence": source.licence,
            "dummy": source.dummy,
            "scheme": scheme.name,
            "format": scheme.format,
            "file": artifact.path.name,
            "codellm": __version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        candidate = attrs.evolve(
            source,
            format=artifact.format,
            path=artifact.path,
            files=(artifact.path,),
            scheme=scheme.name,
            tensors=None,
        )
        if not source.dummy:
            progress(f"checking {scheme.name}", 0, 1)
            reference = _reference(base) if scheme.bound is not None else None
            manifest["quality"] = attrs.asdict(quality.gate(candidate, scheme, reference))
            progress(f"checking {scheme.name}", 1, 1)
        _write_manifest(directory, manifest)
        directory.rename(final)
    kept = _read(final)
    assert kept is not None  # just written
    return kept


def _written(request: QuantizeRequest) -> Artifact:
    """Have a plugin do what is requested, and see that it did."""
    manager, scheme = plugins.manager(), request.scheme.name
    try:
        artifact = manager.hook.codellm_quantize(request=request)
    except CodellmError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        raise ArtifactError(
            f"{request.source.name}: writing it in {scheme} failed: {plugins.describe(error)}{manager.blame(error)}"
        ) from error
    if artifact is None:
        raise UnknownNameError("scheme", scheme, (), "No installed plugin writes it.")
    who = manager.implementers("codellm_quantize")
    if not isinstance(artifact, Artifact):
        raise ArtifactError(
            f"{request.source.name}: writing it in {scheme} gave {type(artifact).__name__}, not an Artifact; "
            f"report it to the plugin's author{who}"
        )
    if artifact.path != request.destination or not request.destination.is_file():
        raise ArtifactError(
            f"{request.source.name}: writing it in {scheme} left no file where it was asked for; "
            f"report it to the plugin's author{who}"
        )
    return artifact


def _reference(base: ModelSource) -> float:
    """Bits per byte of what a scheme is made from: the gate's own figure where it is an artifact, else measured."""
    from codellm import quality

    kept = _read(base.path.parent) if base.path is not None else None
    figures = kept.manifest.get("quality") if kept else None
    return float(figures["bits_per_byte"]) if figures else quality.measure(base)


def _lossless(source: ModelSource, scheme: Scheme) -> Scheme:
    from codellm.registry import registry

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


def _as_source(source: ModelSource, kept: Kept) -> ModelSource:
    return attrs.evolve(
        source,
        format=str(kept.manifest["format"]),
        path=kept.path,
        files=(kept.path,),
        scheme=str(kept.manifest["scheme"]),
        tensors=None,
        digest=source.digest,
    )


def _root() -> Path:
    return cache_path() / "artifacts"


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name.rstrip("/").rsplit("/", 1)[-1])


def _directory(source: ModelSource, scheme: Scheme) -> Path:
    key = hashlib.sha256(f"{source.digest}\0{scheme.name}\0{__version__}".encode()).hexdigest()[:12]
    return _root() / f"{_slug(source.name)}-{scheme.name}-{key}"


def _lookup(source: ModelSource, scheme: Scheme) -> Kept | None:
    return _read(_directory(source, scheme))


def _read(directory: Path) -> Kept | None:
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    kept = Kept(directory=directory, manifest=manifest)
    return kept if kept.path.is_file() else None


def _write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


@contextlib.contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """A directory beside `final`, gone whatever happens unless it was renamed.

    The caller holds the lock of `final`, so what another process left beside it was left by one that was killed.
    """
    directory: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for stale in final.parent.glob(f".{final.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        directory = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
        directory.mkdir()
        yield directory
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{final.parent}: cannot be written ({error.strerror or error}); free some space or set CODELLM_CACHE"
        ) from error
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _lock(source: ModelSource, scheme: Scheme) -> Iterator[None]:
    """Only one process makes an artifact; the others wait and find it made."""
    import filelock

    path = _directory(source, scheme)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise ArtifactError(f"{path.parent}: cannot be written ({error.strerror}); set CODELLM_CACHE") from error
    try:
        yield
    finally:
        lock.release()
