"""llama.cpp's quantizer, from one GGUF file to another: what fits it, its progress, and why it failed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from codellm.errors import ArtifactError, InvalidValueError, ModelFileError
from codellm_cpu.child import Child, Ending, running
from codellm_cpu.files import amount
from codellm_cpu.llama.header import Header, TensorEntry
from codellm_cpu.schemes import CONVERSIONS, FILE_TYPES, FileType

FULL_PRECISION = (2.0, 4.0)
"""Bytes a weight of the types that a quantization may start from: f16, bf16, f32."""

DONE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) ")
"""llama.cpp's line on a tensor; it ends when the tensor is written."""

PLANNED = re.compile(r"quant size += *([\d.]+) MiB")
FALLBACK = re.compile(r"warning: (\S+) .*-> falling back to +(\S+)")
FAILURE = re.compile(r"failed to quantize: (.*)")
WRITE_FAILED = "iostream error"
"""What llama.cpp says when a write fails, of which it keeps no reason."""


def check_precision(path: Path, header: Header, scheme: str | None) -> None:
    """Refuse a source that has lost precision: quantizing it anew would add a second loss under the name of one.

    Raises:
        InvalidValueError: names the first quantized tensor.
    """
    if scheme is not None and scheme not in CONVERSIONS:
        raise InvalidValueError(f"{path}: already quantized ({scheme}); start from its f32, f16 or bf16 original")
    for tensor in header.tensors.values():
        if tensor.row / tensor.shape[0] not in FULL_PRECISION:
            raise InvalidValueError(
                f"{path}: already quantized (tensor {tensor.name!r}); start from its f32, f16 or bf16 original"
            )


def quantizable(tensor: TensorEntry) -> bool:
    """Whether llama.cpp quantizes a tensor: matrices, but no norms."""
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and "_norm." not in tensor.name


def check_rows(path: Path, header: Header, kind: FileType) -> None:
    """Refuse rows that do not divide into blocks.

    llama.cpp writes such a tensor in another type without failing, and the file's name would lie.

    Raises:
        InvalidValueError: names the tensor and schemes that fit.
    """
    for tensor in filter(quantizable, header.tensors.values()):
        row = tensor.shape[0]
        if row % kind.block:
            fits = [other.name for other in FILE_TYPES.values() if row % other.block == 0]
            advice = f"choose {', '.join(fits)}" if fits else "choose f16 or bf16"
            raise InvalidValueError(
                f"{path}: scheme {kind.name} needs rows of a multiple of {kind.block} weights, "
                f"tensor {tensor.name!r} has {row}; {advice}"
            )


def planned_size(path: Path, header: Header, kind: FileType, *, matrix: bool) -> int:
    """Bytes that the file will take, as llama.cpp plans it, with or without a matrix.

    Raises:
        ModelFileError: llama.cpp refuses the file, or crashes on it.
    """
    planned = None
    with running(
        "codellm_cpu.quantize_child", path.resolve(), "", kind.number, 1, "planned" if matrix else ""
    ) as child:
        for line in child.lines():
            planned = PLANNED.search(line) or planned
        ending = child.wait()
    if ending.code or planned is None:
        raise failure(path, path, ending)
    rounding = 1 << 14  # it tells hundredths of a MiB
    weights = sum(tensor.size for tensor in header.tensors.values())
    return path.stat().st_size - weights + int(float(planned[1]) * (1 << 20)) + rounding


def run_quantizer(
    path: Path,
    header: Header,
    kind: FileType,
    destination: Path,
    *,
    matrix: Path | None,
    threads: int,
    progress: Callable[[int, int], None],
) -> None:
    """llama.cpp in a child process; its log is the progress, and the reason of a failure.

    Raises:
        InvalidValueError: a tensor would be written in another type.
        ModelFileError: llama.cpp refuses the file, or crashes on it.
        ArtifactError: a write failed.
    """
    arguments = (path.resolve(), destination.resolve(), kind.number, threads, matrix or "")
    with running("codellm_cpu.quantize_child", *arguments) as child:
        follow(child, path, header.tensors, kind, progress)
        ending = child.wait()
    if ending.code:
        raise failure(path, destination, ending)


def follow(
    child: Child,
    path: Path,
    tensors: Mapping[str, TensorEntry],
    kind: FileType,
    progress: Callable[[int, int], None],
) -> None:
    """Read the child's log to its end: report the progress in bytes of the source's weights.

    A larger type that the scheme mixes in may not fit rows that the scheme fits: then llama.cpp takes one that is
    larger still.

    Raises:
        InvalidValueError: a tensor would be written in another type than the scheme's.
    """
    total, done = sum(tensor.size for tensor in tensors.values()), 0
    progress(0, total)
    for line in child.lines():
        other = FALLBACK.search(line)
        if other and tensors[other[1]].shape[0] % kind.block:
            raise InvalidValueError(
                f"{path}: tensor {other[1]!r} does not fit scheme {kind.name} (llama.cpp would use {other[2]})"
            )
        finished = DONE.match(line)
        if finished and finished[1] in tensors:
            done += tensors[finished[1]].size
            progress(done, total)


def failure(path: Path, destination: Path, ending: Ending) -> ModelFileError | ArtifactError:
    """What to raise for a child that failed."""
    reasons = [match[1] for line in ending.lines if (match := FAILURE.search(line))]
    if reasons and WRITE_FAILED in reasons[-1]:
        free = shutil.disk_usage(destination.parent).free
        return ArtifactError(
            f"{destination}: cannot be written, {amount(free)} are free there; the partial file is removed"
        )
    if ending.signal:
        return ModelFileError(f"{path}: llama.cpp crashed on it ({ending.signal}): {ending.last}")
    return ModelFileError(f"{path}: llama.cpp cannot quantize it: {reasons[-1] if reasons else ending.last}")
