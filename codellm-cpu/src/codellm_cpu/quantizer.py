"""llama.cpp's quantizer, from one GGUF file to another: what it takes, its progress, and that it did as planned."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from codellm.errors import ArtifactError, InvalidValueError
from codellm.scheme import is_quantized
from codellm_cpu.blocks import NAMES
from codellm_cpu.child import Child, running
from codellm_cpu.failure import failure
from codellm_cpu.llama.header import Header, TensorEntry, read_header
from codellm_cpu.mixture import Mixture

FULL_PRECISION = (2.0, 4.0)
"""Bytes a weight of the types that a quantization may start from: f16, bf16, f32."""

DONE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) ")
"""llama.cpp's line on a tensor; it ends when the tensor is written."""


def check_precision(path: Path, header: Header, scheme: str | None) -> None:
    """Refuse a source that has lost precision: quantizing it anew would add a second loss under the name of one.

    Raises:
        InvalidValueError: names the first quantized tensor.
    """
    if is_quantized(scheme):
        raise InvalidValueError(f"{path}: already quantized ({scheme}); start from its f32, f16 or bf16 original")
    for tensor in header.tensors.values():
        if tensor.row / tensor.shape[0] not in FULL_PRECISION:
            raise InvalidValueError(
                f"{path}: already quantized (tensor {tensor.name!r}); start from its f32, f16 or bf16 original"
            )


def run_quantizer(
    path: Path,
    mixture: Mixture,
    destination: Path,
    *,
    matrix: Path | None,
    threads: int,
    progress: Callable[[int, int], None],
) -> Header:
    """Run llama.cpp in a child process, whose log is the progress and the reason of a failure → header of the result.

    Raises:
        ModelFileError: llama.cpp refuses the file, or crashes on it.
        ArtifactError: a write failed, or a tensor was written in another type than `mixture` says.
    """
    arguments = (path.resolve(), destination.resolve(), mixture.kind.number, threads, matrix or "")
    with running("codellm_cpu.quantize_child", *arguments) as child:
        follow(child, mixture.tensors, progress)
        ending = child.wait()
    if ending.code:
        raise failure(path, destination, ending)
    made = read_header(destination)  # holds the tensors' ends against the file's: nothing was cut
    for name, tensor in made.tensors.items():
        if tensor.kind != mixture.types.get(name):
            raise ArtifactError(
                f"{destination}: llama.cpp wrote tensor {name!r} in {NAMES[tensor.kind]}, which it had not planned; "
                "not kept, please report it"
            )
    return made


def follow(child: Child, tensors: Mapping[str, TensorEntry], progress: Callable[[int, int], None]) -> None:
    """Read the child's log to its end: report the progress in bytes of the source's weights."""
    total, done = sum(tensor.size for tensor in tensors.values()), 0
    progress(0, total)
    for line in child.lines():
        finished = DONE.match(line)
        if finished and finished[1] in tensors:
            done += tensors[finished[1]].size
            progress(done, total)
