"""What is kept on disk: codellm's artifacts and the hub's models."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

import attrs

from codellm.artifacts.store import abandoned
from codellm.cli.destination import unwritable
from codellm.cli.doctor.section import Section
from codellm.cli.output import size
from codellm.finding import Finding
from codellm.system.cache import cache_path


@attrs.frozen(kw_only=True)
class Cache:
    """A cache directory, which need not exist: bytes and number of its files."""

    name: str
    path: Path
    bytes: int
    files: int

    @classmethod
    def of(cls, name: str, path: Path) -> Cache:
        """Look at `path`. What may not be read is not counted, nor are links: the hub's lead to its own files."""
        sizes = []
        for folder, _, names in os.walk(path):
            for file in (Path(folder, each) for each in names):
                with contextlib.suppress(OSError):
                    if not file.is_symlink():
                        sizes.append(file.lstat().st_size)
        return cls(name=name, path=path, bytes=sum(sizes), files=len(sizes))


def caches() -> Section:
    """Both caches with their size; one that cannot be written and files that nobody will finish are faults."""
    from huggingface_hub.constants import HF_HUB_CACHE

    ours, hub = Cache.of("codellm", cache_path()), Cache.of("Hugging Face", Path(HF_HUB_CACHE))
    return Section(
        title="Caches",
        findings=(_finding(ours, "CODELLM_CACHE"), *map(_abandoned, abandoned()), _finding(hub, "HF_HOME")),
        facts={"caches": [{**attrs.asdict(cache), "path": str(cache.path)} for cache in (ours, hub)]},
    )


def _finding(cache: Cache, variable: str) -> Finding:
    fault = unwritable(cache.path)
    if fault:
        remedy = f"set {variable} to a directory that you may write"
        return Finding(topic=cache.name, value=f"cannot be written ({fault}): {cache.path}", ok=False, remedy=remedy)
    held = f"{size(cache.bytes)} in {cache.files} files" if cache.files else "empty"
    return Finding(topic=cache.name, value=f"{held}: {cache.path}")


def _abandoned(directory: Path) -> Finding:
    return Finding(
        topic="unfinished",
        value=f"{directory.name}, left by a process that was killed",
        ok=False,
        remedy=f"rm -r {shlex.quote(str(directory))}",
    )
