"""Making a GGUF file in a scheme: conversion from safetensors, or llama.cpp's quantization of a GGUF file."""

from __future__ import annotations

import collections
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from codellm.artifacts import Artifact
from codellm.errors import ArtifactError, InvalidValueError, ModelFileError
from codellm.machine import default_threads
from codellm_cpu.files import amount, writing
from codellm_cpu.llama.header import Header, TensorEntry, read_header
from codellm_cpu.llama.probe import vetted
from codellm_cpu.schemes import CONVERSIONS, SCHEMES

if TYPE_CHECKING:
    from codellm.artifacts import QuantizeRequest

# llama.cpp's file type (include/llama.h, enum llama_ftype) and the weights of a block: rows are made of whole blocks.
FILE_TYPES: dict[str, tuple[int, int]] = {
    "q8_0": (7, 32),
    "q6_k": (18, 256),
    "q5_k_m": (17, 256),
    "q4_k_m": (15, 256),
    "q4_k_s": (14, 256),
    "q4_0": (2, 32),
}

FULL_PRECISION = (2.0, 4.0)
"""Bytes a weight of the types that a quantization may start from: f16, bf16, f32."""

DONE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) ")
"""llama.cpp's line on a tensor; it ends when the tensor is written."""

FALLBACK = re.compile(r"warning: (\S+) .*-> falling back to +(\S+)")
FAILURE = re.compile(r"failed to quantize: (.*)")
WRITE_FAILED = "iostream error"
"""What llama.cpp says when a write fails, of which it keeps no reason."""


def quantize(request: QuantizeRequest) -> Artifact | None:
    """Write `request.source` to `request.destination` in a scheme of `SCHEMES`; None for any other scheme.

    Ctrl-C ends it at once. Whatever goes wrong, no partial file stays.

    Raises:
        InvalidValueError: the source's format is not one that the scheme takes, the source is quantized already, or a
            tensor's rows do not divide into the scheme's blocks.
        ModelFileError: the source is damaged or cannot be converted.
        QualityError: a conversion computes otherwise than its source.
        ArtifactError: the disk is too full, or the file cannot be written.
    """
    scheme = next((known for known in SCHEMES if known.name == request.scheme.name), None)
    if scheme is None:
        return None
    source, destination = request.source, request.destination
    if request.calibration is not None:
        raise InvalidValueError(f"scheme {scheme.name}: takes no calibration text")
    if source.format not in scheme.takes and not (source.dummy and scheme.name in CONVERSIONS):
        raise InvalidValueError(
            f"{source.name}: scheme {scheme.name} starts from {' or '.join(scheme.takes)}, not {source.format}"
        )
    if scheme.name in CONVERSIONS:
        return convert_and_check(request)
    path = source.files[0] if source.files else source.path
    if path is None or len(source.files) > 1:
        raise InvalidValueError(f"{source.name}: quantizing needs one GGUF file")
    header = vetted(path)
    check_precision(path, header, source.scheme)
    size = check_rows(path, header, scheme.name, scheme.bits)
    with writing(destination, size):
        run_quantizer(path, header, scheme.name, destination, request)
        read_header(destination)  # holds the tensors' ends against the file's: nothing was cut
    return Artifact(path=destination, scheme=scheme.name, format="gguf")


def convert_and_check(request: QuantizeRequest) -> Artifact:
    """The conversion, compared with its source; the figures are the artifact's fact `parity`.

    Half of the progress is the comparison's, where weights are compared.
    """
    from codellm_cpu.convert import check_parity, convert

    source, scheme, destination = request.source, request.scheme.name, request.destination
    parts = 1 if source.dummy else 2
    with writing(destination, 0):  # what fails the check does not stay
        convert(source, scheme, destination, lambda done, total: request.progress(done, parts * total))
        parity = check_parity(
            source,
            scheme,
            destination,
            threads=request.threads,
            progress=lambda done, total: request.progress(total + done, parts * total),
        )
    return Artifact(path=destination, scheme=scheme, format="gguf", facts={"parity": parity})


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


def check_rows(path: Path, header: Header, scheme: str, bits: float) -> int:
    """Refuse rows that do not divide into blocks; the bytes that the file will take, roughly.

    llama.cpp writes such a tensor in another type without failing, and the file's name would lie.

    Raises:
        InvalidValueError: names the tensor and a scheme that fits.
    """
    block = FILE_TYPES[scheme][1]
    total = path.stat().st_size
    for tensor in header.tensors.values():
        if not quantizable(tensor):
            continue
        row = tensor.shape[0]
        if row % block:
            fits = [name for name, (_, other) in FILE_TYPES.items() if row % other == 0]
            advice = f"choose {' or '.join(fits)}" if fits else "choose f16 or bf16"
            raise InvalidValueError(
                f"{path}: scheme {scheme} needs rows of a multiple of {block} weights, "
                f"tensor {tensor.name!r} has {row}; {advice}"
            )
        # llama.cpp keeps the output at Q6_K (Q8_0 where rows do not divide), and some tensors of the mixed schemes
        output = 8.5 if row % 256 else 6.5625
        ends = tensor.name in ("token_embd.weight", "output.weight")
        kept = max(bits, output) if ends else bits * (1.1 if "_k_" in scheme else 1.0)
        total -= tensor.size - int(math.prod(tensor.shape) * kept / 8)
    return total


def run_quantizer(path: Path, header: Header, scheme: str, destination: Path, request: QuantizeRequest) -> None:
    """llama.cpp in a child process; its log is the progress, and the reason of a failure.

    Raises:
        InvalidValueError: a tensor would be written in another type.
        ModelFileError: llama.cpp refuses the file, or crashes on it.
        ArtifactError: a write failed.
    """
    threads = request.threads or default_threads()
    command = [sys.executable, "-P", "-m", "codellm_cpu.quantize_child"]
    arguments = [str(path.resolve()), str(destination.resolve()), str(FILE_TYPES[scheme][0]), str(threads)]
    child = subprocess.Popen(
        command + arguments,
        stdin=subprocess.PIPE,  # held open: the child ends when it closes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,  # Ctrl-C reaches this process only, which then ends the child and removes the file
        encoding="utf-8",
        errors="replace",
    )
    lines: collections.deque[str] = collections.deque(maxlen=20)
    try:
        follow(child, path, header.tensors, scheme, request, lines)
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
    if code:
        raise failure(path, destination, code, list(lines))


def follow(
    child: subprocess.Popen[str],
    path: Path,
    tensors: Mapping[str, TensorEntry],
    scheme: str,
    request: QuantizeRequest,
    lines: collections.deque[str],
) -> None:
    """Read the child's log to its end: report the progress in bytes of the source's weights, keep the last lines.

    Raises:
        InvalidValueError: a tensor would be written in another type.
    """
    total, done = sum(tensor.size for tensor in tensors.values()), 0
    request.progress(0, total)
    assert child.stdout is not None  # a pipe was asked for
    for line in child.stdout:
        lines.append(line.strip())
        other = FALLBACK.search(line)
        if other:
            name, kind = other.groups()
            raise InvalidValueError(
                f"{path}: tensor {name!r} does not fit scheme {scheme} (llama.cpp would use {kind})"
            )
        finished = DONE.match(line)
        if finished and finished[1] in tensors:
            done += tensors[finished[1]].size
            request.progress(done, total)


def failure(path: Path, destination: Path, code: int, lines: list[str]) -> ModelFileError | ArtifactError:
    """What to raise for a child that ended with `code`, from its last lines."""
    reasons = [match[1] for line in lines if (match := FAILURE.search(line))]
    last = next((line for line in reversed(lines) if line), "it gave no reason")
    if reasons and WRITE_FAILED in reasons[-1]:
        free = shutil.disk_usage(destination.parent).free
        return ArtifactError(
            f"{destination}: cannot be written, {amount(free)} are free there; the partial file is removed"
        )
    if code < 0:
        return ModelFileError(f"{path}: llama.cpp crashed on it ({signal.Signals(-code).name}): {last}")
    return ModelFileError(f"{path}: llama.cpp cannot quantize it: {reasons[-1] if reasons else last}")
