"""The types that llama.cpp gives a file's tensors in a scheme, asked of itself before anything is written.

A scheme is a mixture: its main type, larger ones where it matters, and others where a row does not divide into blocks
of the type that was meant. llama.cpp's own table of these (tensor_type_fallback in its src/llama-quant.cpp) is not
repeated here: a dry run of its quantizer logs what it would do.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping
from pathlib import Path

import attrs

from codellm.errors import InvalidValueError
from codellm_cpu.blocks import BLOCKS, NAMES
from codellm_cpu.child import running
from codellm_cpu.failure import failure
from codellm_cpu.llama.header import Header, TensorEntry
from codellm_cpu.schemes import FileType

TENSOR = re.compile(r"^\[ *\d+/ *\d+\] (\S+) .* MiB -> .* MiB \((\S+)\)")
"""A dry run's line on a tensor that changes its type."""

FALLBACK = re.compile(r"warning: (\S+) .*-> falling back to +(\S+)")
"""Its line on one that a type was meant for whose blocks its rows do not fill."""

_NUMBERS = {name: number for number, name in NAMES.items()}


@attrs.frozen
class Mixture:
    """The type of each tensor by number (ggml.h), and which of them have another than the scheme means them to have."""

    kind: FileType
    tensors: Mapping[str, TensorEntry]
    """As the file that is quantized has them."""
    types: Mapping[str, int]
    misfits: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        total = 0
        for name, tensor in self.tensors.items():
            block, size = BLOCKS[self.types[name]]
            total += math.prod(tensor.shape) // block * size
        return total

    @property
    def bits(self) -> float:
        """Bits a weight, over all tensors."""
        return self.size * 8 / sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def remark(self) -> str:
        """How many tensors have another type, which, and what a weight then takes; empty where there is none."""
        if not self.misfits:
            return ""
        rows = " and ".join(map(str, sorted({self.tensors[name].shape[0] for name in self.misfits})))
        counts = collections.Counter(NAMES[self.types[name]] for name in self.misfits)
        types = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        matrices = sum(map(quantizable, self.tensors.values()))
        return (
            f"{self.kind.name}: rows of {rows} do not fill whole blocks, so {len(self.misfits)} of {matrices} matrices "
            f"become another type ({types}): {self.bits:.2f} bits a weight"
        )


def mix(path: Path, header: Header, kind: FileType, *, matrix: bool, name: str | None = None) -> Mixture:
    """What llama.cpp would make of the file at `path`, with or without an importance matrix; no weight is read.

    `name` is what messages call it, if not by its path.

    Raises:
        InvalidValueError: nothing of it would be quantized.
        ModelFileError: llama.cpp refuses the file, or crashes on it.
    """
    types = {title: tensor.kind for title, tensor in header.tensors.items()}
    misfits = set()
    arguments = (path.resolve(), "", kind.number, 1, "planned" if matrix else "")
    with running("codellm_cpu.quantize_child", *arguments) as child:
        for line in child.lines():
            if (changed := TENSOR.match(line)) and changed[1] in types:
                types[changed[1]] = _NUMBERS[changed[2].lower()]
            elif (other := FALLBACK.search(line)) and other[1] in types:
                misfits.add(other[1])
        ending = child.wait()
    if ending.code:
        raise failure(name or path, path, ending)
    matrices = {title: tensor for title, tensor in header.tensors.items() if quantizable(tensor)}
    misfits |= {title for title, tensor in matrices.items() if tensor.shape[0] % kind.block}  # the output: no warning
    if matrices and all(BLOCKS[types[title]][0] == 1 for title in matrices):
        rows = " and ".join(map(str, sorted({tensor.shape[0] for tensor in matrices.values()})))
        raise InvalidValueError(
            f"{name or path}: scheme {kind.name} would quantize nothing, since rows of {rows} fill no whole blocks; "
            "choose f16 or bf16"
        )
    return Mixture(kind, header.tensors, types, frozenset(misfits))


def quantizable(tensor: TensorEntry) -> bool:
    """Whether llama.cpp quantizes a tensor: matrices, but no norms."""
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and "_norm." not in tensor.name
