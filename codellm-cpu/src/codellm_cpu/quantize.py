"""Making a GGUF file in a scheme: conversion from safetensors, or llama.cpp's quantization of a GGUF file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from codellm.artifacts.request import Artifact
from codellm.errors import InvalidValueError
from codellm.system.machine import default_threads
from codellm_cpu.files import require_room, writing
from codellm_cpu.imatrix import matrix
from codellm_cpu.llama.header import Header, read_header
from codellm_cpu.llama.probe import vetted
from codellm_cpu.mixture import Mixture, mix
from codellm_cpu.quantizer import check_precision, run_quantizer
from codellm_cpu.schemes import CONVERSIONS, FILE_TYPES, SCHEMES

if TYPE_CHECKING:
    from pathlib import Path

    from codellm.artifacts.request import QuantizeRequest
    from codellm.sources import ModelSource

Write = Callable[["ModelSource", str, "Path", Callable[[int, int], None]], object]
"""Writes a source in a precision to a file, and tells how far it is."""

ROOM_A_TENSOR = 64
"""Bytes that a tensor's alignment may add, with what the header gains."""


def quantize(request: QuantizeRequest) -> Artifact | None:
    """Write `request.source` to `request.destination` in a scheme of `SCHEMES`; None for any other scheme.

    Ctrl-C ends it at once. Whatever goes wrong, no partial file stays.

    Raises:
        InvalidValueError: the source's format is not one that the scheme takes, the source is quantized already, or
            no tensor's rows divide into blocks.
        ModelFileError: the source is damaged or cannot be converted.
        QualityError: a conversion computes otherwise than its source.
        ArtifactError: the disk is too full, or the file cannot be written.
    """
    scheme = next((known for known in SCHEMES if known.name == request.scheme.name), None)
    if scheme is None:
        return None
    source = request.source
    if source.format not in scheme.takes and not (source.dummy and scheme.name in CONVERSIONS):
        raise InvalidValueError(
            f"{source.name}: scheme {scheme.name} starts from {' or '.join(scheme.takes)}, not {source.format}"
        )
    if scheme.name in CONVERSIONS:
        return convert_and_check(request)
    return quantize_and_check(request)


def convert_and_check(request: QuantizeRequest, write: Write | None = None) -> Artifact:
    """The conversion that `write` does, `convert` by default, compared with its source: the artifact's fact `parity`.

    Half of the progress is the comparison's, where weights are compared.
    """
    from codellm_cpu.convert import check_parity, convert

    write = write or convert
    source, scheme, destination = request.source, request.scheme.name, request.destination
    parts = 1 if source.dummy else 2
    with writing(destination, 0):  # what fails the check does not stay
        write(source, scheme, destination, lambda done, total: request.progress(done, parts * total))
        parity = check_parity(
            source,
            scheme,
            destination,
            threads=request.threads,
            progress=lambda done, total: request.progress(total + done, parts * total),
        )
    return Artifact(
        path=destination, scheme=scheme, format="gguf", facts={**weights(read_header(destination)), "parity": parity}
    )


def quantize_and_check(request: QuantizeRequest) -> Artifact:
    """The quantization, fitted to a calibration text where the request has one; its matrix is half of the progress."""
    source, destination, kind = request.source, request.destination, FILE_TYPES[request.scheme.name]
    path = source.files[0] if source.files else source.path
    if path is None or len(source.files) > 1:
        raise InvalidValueError(f"{source.name}: quantizing needs one GGUF file")
    header = vetted(path)
    check_precision(path, header, source.scheme)
    calibration = request.calibration
    mixture = mix(path, header, kind, matrix=calibration is not None)
    size = room(path, mixture)
    require_room(destination, size)
    parts = 1 if calibration is None else 2
    weighed = None
    if calibration is not None:
        weighed = matrix(request, calibration, path, lambda done, total: request.progress(done, parts * total))
    with writing(destination, size):
        made = run_quantizer(
            path,
            mixture,
            destination,
            matrix=weighed,
            threads=request.threads or default_threads(),
            progress=lambda done, total: request.progress((parts - 1) * total + done, parts * total),
        )
    return Artifact(path=destination, scheme=kind.name, format="gguf", facts=weights(made))


def room(path: Path, mixture: Mixture) -> int:
    """Bytes that the file at `path` will take in `mixture`."""
    weights = sum(tensor.size for tensor in mixture.tensors.values())
    return path.stat().st_size - weights + mixture.size + ROOM_A_TENSOR * len(mixture.tensors)


def weights(header: Header) -> dict[str, int]:
    """What a file holds, for the manifest: how many weights, and the bytes that they take."""
    tensors = header.tensors.values()
    return {
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "weight_bytes": sum(tensor.size for tensor in tensors),
    }
