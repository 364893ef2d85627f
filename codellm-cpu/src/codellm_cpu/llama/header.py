"""A GGUF file's header, read within bounds: what llama.cpp must not be handed, since it aborts the process.

Format: github.com/ggml-org/ggml, docs/gguf.md. Nothing is allocated or looped over on a file's word alone: every count
is first held against the bytes the file really has.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import attrs

from codellm.errors import ModelFileError

_MAX_ENTRIES = 1 << 24  # tokens of a vocabulary, merges: the largest known are below 2**20
_MAX_TENSORS = 1 << 17
_MAX_PAIRS = 1 << 16
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}

Scalar = int | float | bool | str


@attrs.frozen
class TensorEntry:
    """A tensor as the header lists it; `size` in bytes, `row` the bytes of one row of its first dimension."""

    name: str
    shape: tuple[int, ...]
    size: int
    row: int


@attrs.frozen
class Header:
    """The scalars of a GGUF header, and its tensors by name."""

    scalars: Mapping[str, Scalar]
    tensors: Mapping[str, TensorEntry]

    @property
    def architecture(self) -> str:
        """`general.architecture`, by which the other keys are named."""
        return str(self.scalars["general.architecture"])

    def number(self, key: str) -> int | None:
        """A whole number named `<architecture>.<key>`."""
        value = self.scalars.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def decode_bytes(self) -> int:
        """Bytes of weights that one decoded token reads.

        All tensors; of the token embedding one row only where the output matrix is a tensor of its own (where the two
        are tied, the whole embedding is read as the output matrix). For a mixture of experts this is an upper bound.
        """
        total = sum(tensor.size for tensor in self.tensors.values())
        embedding = self.tensors.get("token_embd.weight")
        if embedding is not None and "output.weight" in self.tensors:
            total -= embedding.size - embedding.row
        return total


def read_header(path: Path) -> Header:
    """Read and check the header of `path`.

    Raises:
        ModelFileError: the file is missing, empty, cut short, no GGUF, or claims what it cannot hold.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ModelFileError(f"{path}: the file is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, size).header()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Reader:
    """A place in the file, and the steps that move it on."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path, self._data, self._size, self._at = path, data, size, 0

    def header(self) -> Header:
        start = self._take(4)
        magic = self._data[start : self._at]
        if magic != b"GGUF":
            raise self._fault(f"not a GGUF file (it begins with {magic!r})")
        version = int(self._scalar("<I"))
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "big-endian" if swapped in (2, 3) else f"version {version}"
            raise self._fault(f"GGUF {kind} is not supported; convert the model again")
        tensors = self._count("<Q", "tensors", _MAX_TENSORS, 24)
        pairs = self._count("<Q", "metadata entries", _MAX_PAIRS, 13)
        scalars = self._metadata(pairs)
        split = scalars.get("split.count", 0)
        header = Header(scalars, self._tensors(tensors, scalars))
        if not isinstance(scalars.get("general.architecture"), str):
            raise self._fault("the header names no architecture")
        if not (isinstance(split, int) and split > 1):
            self._check_blocks(header)
        return header

    def _fault(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: {what}")

    def _take(self, count: int) -> int:
        """Step over `count` bytes; returns where they begin."""
        start = self._at
        if count > self._size - start:
            raise self._fault(f"cut short: the header goes on past the end of the file ({self._size} bytes)")
        self._at = start + count
        return start

    def _scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(code, self._data, self._take(struct.calcsize(code)))[0]
        return value

    def _count(self, code: str, what: str, most: int, each: int) -> int:
        count = int(self._scalar(code))
        if count > most or count * each > self._size - self._at:
            raise self._fault(f"absurd or cut short: it claims {count} {what} in {self._size} bytes")
        return count

    def _string(self) -> str:
        length = self._count("<Q", "bytes of text", 1 << 30, 1)
        start = self._take(length)
        return self._data[start : start + length].decode("utf-8", "replace")

    def _metadata(self, count: int) -> dict[str, Scalar]:
        found: dict[str, Scalar] = {}
        for _ in range(count):
            key = self._string()
            kind = int(self._scalar("<I"))
            if kind == _ARRAY:
                self._skip_array(key)
            elif kind == _STRING:
                found[key] = self._string()
            elif kind in _SCALARS:
                found[key] = self._scalar(_SCALARS[kind])
            else:
                raise self._fault(f"metadata {key!r} has the unknown type {kind}")
        return found

    def _skip_array(self, key: str) -> None:
        kind = int(self._scalar("<I"))
        if kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            self._take(width * self._count("<Q", f"values of {key!r}", _MAX_ENTRIES, width))
        elif kind == _STRING:
            length, data = struct.Struct("<Q"), self._data
            for _ in range(self._count("<Q", f"values of {key!r}", _MAX_ENTRIES, 8)):
                self._take(length.unpack_from(data, self._take(8))[0])
        else:
            raise self._fault(f"metadata {key!r} is an array of the unsupported type {kind}")

    def _tensors(self, count: int, scalars: Mapping[str, Scalar]) -> dict[str, TensorEntry]:
        found: dict[str, TensorEntry] = {}
        end = 0
        for _ in range(count):
            entry, offset = self._tensor()
            found[entry.name] = entry
            end = max(end, offset + entry.size)
        alignment = scalars.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise self._fault(f"the alignment {alignment!r} is not a power of two")
        end += -(-self._at // alignment) * alignment
        if end > self._size:
            raise self._fault(f"cut short: its tensors end at byte {end}, the file at {self._size}")
        return found

    def _tensor(self) -> tuple[TensorEntry, int]:
        name = self._string()
        rank = int(self._scalar("<I"))
        if not 1 <= rank <= 4:
            raise self._fault(f"tensor {name!r} has {rank} dimensions")
        shape = tuple(int(self._scalar("<Q")) for _ in range(rank))
        kind = int(self._scalar("<I"))
        offset = int(self._scalar("<Q"))
        block, width = _block(kind)
        if not block:
            raise self._fault(f"tensor {name!r} has the unknown type {kind}")
        if min(shape) < 1 or shape[0] % block:
            raise self._fault(f"tensor {name!r} has the impossible shape {shape}")
        row = shape[0] // block * width
        size = row
        for length in shape[1:]:
            size *= length
        return TensorEntry(name, shape, size, row), offset

    def _check_blocks(self, header: Header) -> None:
        """llama.cpp allocates by `block_count` before it looks at the tensors, and aborts the process on a huge one."""
        blocks = header.number("block_count")
        if blocks is not None and not 0 <= blocks <= len(header.tensors):
            raise self._fault(f"it claims {blocks} blocks but holds {len(header.tensors)} tensors")


def _block(kind: int) -> tuple[int, int]:
    """Values and bytes of one block of a tensor type, (0, 0) where nobody knows the type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (KeyError, ValueError):
        return 0, 0
    return block, width
