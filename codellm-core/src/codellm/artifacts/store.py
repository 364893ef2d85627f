"""What codellm made and keeps: directories in its cache, whole or not there, one process at a time making each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from codellm._version import __version__
from codellm.errors import ArtifactError, ModelFileError
from codellm.system.cache import cache_path, content_digest


@attrs.frozen(kw_only=True)
class Kept:
    """An artifact in the cache, and its manifest."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def path(self) -> Path:
        """The file, or the directory of a checkpoint."""
        return self.directory / str(self.manifest["file"])

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with contextlib.suppress(OSError):
            return size(self.path)
        return 0

    @property
    def intact(self) -> bool:
        """Whether it holds what was kept: a digest of all of it, remembered until the file changes."""
        try:
            return content(self.path) == self.manifest.get("content")
        except ModelFileError:
            return False


@attrs.frozen
class CacheEntry:
    """Where an artifact belongs: by the model's name, what it is made into, and the contents that it is made from.

    Another version of codellm may make another file, so its artifacts have entries of their own.
    """

    name: str
    kind: str
    contents: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and kind, fit for a file's name."""
        last = self.name.rstrip("/").rsplit("/", 1)[-1]
        return "".join(char if char.isalnum() or char in "._-" else "-" for char in last) + f"-{self.kind}"

    @property
    def directory(self) -> Path:
        """Where it is when it is whole."""
        parts = "\0".join((*self.contents[:1], self.kind, __version__, *self.contents[1:]))
        return _root() / f"{self.title}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"

    def kept(self) -> Kept | None:
        """What is there."""
        return read(self.directory)

    def sound(self) -> Kept | None:
        """What is there and was not changed since."""
        kept = self.kept()
        return kept if kept is not None and kept.intact else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process makes an artifact; the others wait, and then find it made.

        Raises:
            ArtifactError: the cache cannot be written.
        """
        import filelock

        directory = self.directory
        lock = filelock.FileLock(directory.with_name(f".{directory.name}.lock"))
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise ArtifactError(
                f"{directory.parent}: cannot be written ({error.strerror}); set CODELLM_CACHE"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def making(self, manifest: dict[str, Any]) -> Iterator[Path]:
        """A directory to make it in, which is kept with the `manifest` when the block ends well, and else is gone.

        The caller holds the lock and has seen that nothing whole is there. What processes that were killed left
        anywhere in the cache goes first.

        Raises:
            ArtifactError: something cannot be written.
        """
        final, directory = self.directory, None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            for stale in (final, *final.parent.glob(f".{final.name}-*"), *abandoned()):
                shutil.rmtree(stale, ignore_errors=True)
            directory = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
            directory.mkdir()
            yield directory
            manifest["content"] = content(directory / str(manifest["file"]))
            (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
            directory.rename(final)
        except OSError as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"{final.parent}: cannot be written ({error.strerror or error}); free some space or set CODELLM_CACHE"
            ) from error
        finally:
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


def kept_artifacts() -> list[Kept]:
    """Everything in the cache, by name and scheme."""
    found = [kept for path in _root().glob("*/manifest.json") if (kept := read(path.parent)) is not None]
    return sorted(found, key=lambda kept: (str(kept.manifest["source"]), str(kept.manifest["scheme"])))


def read(directory: Path) -> Kept | None:
    """The artifact of a directory; None where there is none, or not a whole one."""
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or "file" not in manifest:
        return None
    kept = Kept(directory=directory, manifest=manifest)
    return kept if kept.path.exists() else None


def size(path: Path) -> int:
    """Bytes of a file, or of all files under a directory."""
    return sum(file.stat().st_size for file in _files(path))


def content(path: Path) -> str:
    """The digest of a file, or of all files under a directory.

    Raises:
        ModelFileError: one cannot be read.
    """
    return content_digest(_files(path))


def remove(kept: Kept) -> None:
    """Delete an artifact: it is gone at once, and swept later where this is killed half way.

    Raises:
        ArtifactError: it cannot be deleted.
    """
    try:
        doomed = kept.directory.rename(kept.directory.with_name(f".{kept.directory.name}-{secrets.token_hex(4)}"))
        shutil.rmtree(doomed)
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


def _files(path: Path) -> list[Path]:
    return sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]


def _root() -> Path:
    return cache_path() / "artifacts"
