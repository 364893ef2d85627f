"""A GGUF file's header, read within bounds: what llama.cpp must not be handed, since it aborts the process.

Format: github.com/ggml-org/ggml, docs/gguf.md. Nothing is allocated or looped over on a file's word alone: every count
is first held against the bytes the file really has. The file is read, not mapped: one that another process cuts short
meanwhile gives an error, where a map would end this process with SIGBUS. What the keys mean is checked in check.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import attrs

from codellm.errors import ModelFileError
from codellm.sources.regular import open_regular, quoted, shown
from codellm_cpu.blocks import BLOCKS

# Far above every known model (262144 tokens, 580000 merges, a header of 40 MB), and a second or two of reading.
_MAX_HEADER = 256 << 20
_MAX_STRINGS = 1 << 22
_MAX_VALUES = 1 << 24
_MAX_TENSORS = 1 << 17
_MAX_PAIRS = 1 << 16
_MAX_KEY = 65535  # bytes, docs/gguf.md
_MAX_NAME = 63  # bytes, ggml.h: GGML_MAX_NAME with its closing zero
_ALIGNMENTS = tuple(1 << power for power in range(5, 21))  # ggml computes on data at multiples of 32 only
_CHUNK = 4 << 20

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_NAMES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array"),
    *("uint64", "int64", "float64"),
)

Scalar = int | float | bool | str


@attrs.frozen
class Array:
    """An array of the header, without its values: `kind` as docs/gguf.md names types, in small letters."""

    kind: str
    length: int


@attrs.frozen
class TensorEntry:
    """A tensor as the header lists it: its type's number (ggml.h), `size` in bytes, `row` the bytes of one row."""

    name: str
    shape: tuple[int, ...]
    kind: int
    size: int
    row: int


@attrs.frozen
class Header:
    """The scalars and arrays of a GGUF header by key, and its tensors by name."""

    scalars: Mapping[str, Scalar]
    arrays: Mapping[str, Array]
    tensors: Mapping[str, TensorEntry]

    @property
    def architecture(self) -> str:
        """Name that the other keys begin with: `general.architecture`."""
        return str(self.scalars["general.architecture"])

    def number(self, key: str) -> int | None:
        """Whole number of the key `<architecture>.<key>`; None where there is none."""
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
    """Read the header of `path` within bounds.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFileError: it is no regular file, empty, cut short, no GGUF, or claims what it cannot hold.
    """
    with open_regular(path) as file:
        return _Reader(path, file).header()


class _Reader:
    """A position in the file, and the steps that move it on. `_data` is what was read so far, from the beginning."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._data = bytearray()
        self._at = 0
        self._strings = 0

    def header(self) -> Header:
        if not self._size:
            raise self._fault("the file is empty")
        start = self._take(4)
        magic = bytes(self._data[start : self._at])
        if magic != b"GGUF":
            raise self._fault(f"not a GGUF file (it begins with {magic!r})")
        version = self._whole("<I")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "big-endian" if swapped in (2, 3) else f"version {version}"
            raise self._fault(f"GGUF {kind} is not supported")
        tensors = self._count("tensors", _MAX_TENSORS, 24)
        pairs = self._count("metadata entries", _MAX_PAIRS, 13)
        scalars, arrays = self._metadata(pairs)
        return Header(scalars, arrays, self._tensors(tensors, scalars))

    def _fault(self, what: str, remedy: str = "fetch or convert it again") -> ModelFileError:
        return ModelFileError(f"{shown(self._path)}: {what}; {remedy}")

    def _take(self, count: int) -> int:
        """Step over `count` bytes; returns where they begin in `_data`."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._data):
            self._fill()
        return start

    def _fill(self) -> None:
        if self._at > self._size:
            raise self._fault(f"cut short: the header goes on past the end of the file ({self._size} bytes)")
        if self._at > _MAX_HEADER:
            raise self._fault(f"its header is longer than {_MAX_HEADER} bytes")
        self._data += self._file.read(max(_CHUNK, self._at - len(self._data)))
        if self._at > len(self._data):
            raise self._fault("it changed while it was read", "try again when it is complete")

    def _whole(self, code: str) -> int:
        """Read a whole number in the form of `code` (the struct module's)."""
        value: int = struct.unpack_from(code, self._data, self._take(struct.calcsize(code)))[0]
        return value

    def _count(self, what: str, most: int, each: int) -> int:
        """How many `what` follow, of `each` bytes at least."""
        count = self._whole("<Q")
        if count > most or count * each > self._size - self._at:
            raise self._fault(f"absurd or cut short: it claims {count} {what} in {self._size} bytes")
        return count

    def _bytes(self, what: str, most: int) -> bytes:
        """Read a string as it stands."""
        length = self._count(f"bytes of {what}", most, 1)
        start = self._take(length)
        return bytes(self._data[start : start + length])

    def _name(self, what: str, most: int) -> str:
        """Read a string that names something: UTF-8, not empty, without a zero byte."""
        text = self._bytes(f"a {what}", most)
        try:
            name = text.decode()
        except UnicodeDecodeError as error:
            raise self._fault(f"a {what} is no UTF-8: {quoted(text.decode('utf-8', 'backslashreplace'))}") from error
        if not name or "\0" in name:
            raise self._fault(f"a {what} is empty or holds a zero byte: {quoted(name)}")
        return name

    def _metadata(self, count: int) -> tuple[dict[str, Scalar], dict[str, Array]]:
        scalars: dict[str, Scalar] = {}
        arrays: dict[str, Array] = {}
        for _ in range(count):
            key = self._name("key", _MAX_KEY)
            if key in scalars or key in arrays:
                raise self._fault(f"the key {quoted(key)} stands twice")
            kind = self._whole("<I")
            if kind == _ARRAY:
                arrays[key] = self._array(key)
            else:
                scalars[key] = self._scalar(key, kind)
        return scalars, arrays

    def _scalar(self, key: str, kind: int) -> Scalar:
        if kind == _STRING:
            return self._bytes(f"the text of {quoted(key)}", _MAX_HEADER).decode("utf-8", "replace")
        if kind not in _SCALARS:
            raise self._fault(f"the key {quoted(key)} has the unknown type {kind}")
        code = _SCALARS[kind]
        value: int | float = struct.unpack_from(code, self._data, self._take(struct.calcsize(code)))[0]
        if kind != _BOOL:
            return value
        if value not in (0, 1):
            raise self._fault(f"the key {quoted(key)} is a bool of the value {value}, not 0 or 1")
        return bool(value)

    def _array(self, key: str) -> Array:
        kind = self._whole("<I")
        values = f"values of {quoted(key)}"
        if kind == _STRING:
            length = self._count(values, _MAX_STRINGS - self._strings, 8)
            self._strings += length
            length_at = struct.Struct("<Q").unpack_from
            for _ in range(length):
                self._take(length_at(self._data, self._take(8))[0])
        elif kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            length = self._count(values, _MAX_VALUES, width)
            start = self._take(width * length)
            if kind == _BOOL and max(self._data[start : self._at], default=0) > 1:
                raise self._fault(f"the key {quoted(key)} holds a bool that is neither 0 nor 1")
        elif kind == _ARRAY:
            raise self._fault(f"the key {quoted(key)} is an array of arrays, which no model uses")
        else:
            raise self._fault(f"the key {quoted(key)} is an array of the unknown type {kind}")
        return Array(_NAMES[kind], length)

    def _tensors(self, count: int, scalars: Mapping[str, Scalar]) -> dict[str, TensorEntry]:
        alignment = scalars.get("general.alignment", 32)
        if type(alignment) is not int or alignment not in _ALIGNMENTS:
            raise self._fault(f"its alignment {alignment!r} is no power of two from 32 to {1 << 20}")
        found: dict[str, TensorEntry] = {}
        end = 0
        for _ in range(count):
            entry, offset = self._tensor()
            name = quoted(entry.name)
            if entry.name in found:
                raise self._fault(f"the tensor {name} stands twice")
            # llama.cpp takes no other order (gguf.cpp): so none overlap, none is misaligned, and there are no holes
            expected = -(-end // alignment) * alignment
            if offset != expected:
                raise self._fault(f"the tensor {name} begins at byte {offset} of the data, not at {expected}")
            found[entry.name] = entry
            end = offset + entry.size
        end += -(-self._at // alignment) * alignment
        if found and end > self._size:
            raise self._fault(f"cut short: its tensors end at byte {end}, the file at {self._size}")
        return found

    def _tensor(self) -> tuple[TensorEntry, int]:
        name = self._name("tensor's name", _MAX_NAME)
        rank = self._whole("<I")
        if not 1 <= rank <= 4:
            raise self._fault(f"the tensor {quoted(name)} has {rank} dimensions")
        shape = tuple(self._whole("<Q") for _ in range(rank))
        kind, offset = self._whole("<I"), self._whole("<Q")
        if kind not in BLOCKS:
            raise self._fault(f"the tensor {quoted(name)} has the unknown type {kind}")
        block, width = BLOCKS[kind]
        if min(shape) < 1 or shape[0] % block:
            raise self._fault(f"the tensor {quoted(name)} has the impossible shape {shape}")
        row = shape[0] // block * width
        size = row
        for length in shape[1:]:
            size *= length
        return TensorEntry(name, shape, kind, size, row), offset
