"""Weights in safetensors files, read tensor by tensor without copying.

The safetensors package gives numpy no bfloat16 (it needs ml_dtypes or torch for it), and most checkpoints are
bfloat16; so this reads the format itself, which is small: 8 bytes of little-endian header length N, N bytes of a JSON
object, then the data. Source: the format section of the README of huggingface/safetensors, whose limits are kept: a
header of at most 100 MB, no duplicate keys, no holes and no overlaps in the data.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from codellm.errors import ModelFileError
from codellm.sources.regular import open_regular, quoted, shown
from codellm.sources.source import TensorInfo, Tensors

MAX_HEADER = 100_000_000
MAX_NESTED = 1 << 22
"""Lists and objects of a header: three for each of a million tensors, where 100 MB of brackets would take gigabytes."""
MAX_EMPTY = 1 << 48
"""The product of an empty tensor's other extents, which numpy refuses from 2**60 on."""
MAX_RANK = 16
"""More dimensions than any weight has, fewer than numpy refuses."""

TYPES: dict[str, tuple[str, str]] = {  # safetensors' name: (ours, numpy's)
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),  # numpy has no bfloat16: the bit patterns
    "I64": ("int64", "<i8"),
    "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"),
    "I8": ("int8", "i1"),
    "U64": ("uint64", "<u8"),
    "U32": ("uint32", "<u4"),
    "U16": ("uint16", "<u2"),
    "U8": ("uint8", "u1"),
    "BOOL": ("bool", "?"),
}

NARROW = re.compile(r"F[468](_|$)")
"""How the names of floats of 8 bits and fewer begin."""


@attrs.frozen
class Entry:
    """A tensor of one file: where its bytes lie, from the file's beginning."""

    info: TensorInfo
    file: int
    """Index in the list of files."""
    kind: np.dtype[Any]
    begin: int
    end: int


class SafetensorsFiles(Tensors):
    """The tensors of one or several safetensors files (a sharded checkpoint).

    Headers are read and checked at once, data only in `read`. The files stay mapped while this object or an array from
    `read` lives.

    Raises:
        ModelNotFoundError: a file is missing.
        ModelFileError: a file is cut short, or not as the format says; a tensor stands in two files.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)
        self._maps: dict[int, mmap.mmap] = {}
        self._entries: dict[str, Entry] = {}
        self._last: Entry | None = None
        for index, path in enumerate(self._files):
            for entry in read_header(path, index):
                name = entry.info.name
                if name in self._entries:
                    first = self._files[self._entries[name].file]
                    raise ModelFileError(f"{shown(path)}: tensor {quoted(name)} also stands in {shown(first)}")
                self._entries[name] = entry

    def infos(self) -> tuple[TensorInfo, ...]:
        return tuple(entry.info for entry in self._entries.values())

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """A read-only view on the mapped file, in the tensor's shape; bfloat16 as uint16 bit patterns.

        Reading the next tensor lets the system take back the pages of the last one (an array still held is read from
        the file again), so that walking through a 7B does not grow to its 14 GB.

        Raises:
            ModelFileError: there is no such tensor.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ModelFileError(f"{', '.join(map(str, self._files))}: no tensor {name!r}")
        self._release()
        self._last = entry
        if entry.begin == entry.end:
            return np.zeros(entry.info.shape, entry.kind)
        data = np.frombuffer(self._map(entry.file), np.uint8, entry.end - entry.begin, entry.begin)
        return data.view(entry.kind).reshape(entry.info.shape)

    def _map(self, file: int) -> mmap.mmap:
        if file not in self._maps:
            try:
                with open_regular(self._files[file]) as stream:
                    self._maps[file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise ModelFileError(f"{shown(self._files[file])}: cannot be mapped ({error})") from error
        return self._maps[file]

    def _release(self) -> None:
        if self._last is None or self._last.begin == self._last.end or not hasattr(mmap, "MADV_DONTNEED"):
            return
        begin = self._last.begin // mmap.PAGESIZE * mmap.PAGESIZE
        self._map(self._last.file).madvise(mmap.MADV_DONTNEED, begin, self._last.end - begin)


def read_header(path: Path, file: int = 0) -> Iterator[Entry]:
    """The tensors that a file's header names, each checked against the file's size.

    Raises:
        ModelNotFoundError: the file is missing.
        ModelFileError: the file is cut short, or not as the format says.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > size - 8:
            raise ModelFileError(f"{shown(path)}: cut short ({size} bytes), or no safetensors file; fetch it again")
        if length > MAX_HEADER:
            raise ModelFileError(f"{shown(path)}: header of {length} bytes, more than {MAX_HEADER}")
        header = parse_header(path, stream.read(length))
    header.pop("__metadata__", None)
    entries = [parse_entry(path, file, name, fields, 8 + length, size) for name, fields in header.items()]
    check_cover(path, entries, 8 + length, size)
    yield from entries


def parse_header(path: Path, text: bytes) -> dict[str, Any]:
    """The header's JSON object.

    Raises:
        ModelFileError: it is none, or a key stands twice.
    """
    if text.count(b"[") + text.count(b"{") > MAX_NESTED:
        raise ModelFileError(f"{shown(path)}: header of more than {MAX_NESTED} lists and objects")
    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{shown(path)}: header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{shown(path)}: header is not a JSON object")
    return header


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, refused where a key stands twice: readers would disagree on which one counts."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {quoted(twice)} stands twice")
    return result


def parse_entry(path: Path, file: int, name: str, fields: Any, start: int, size: int) -> Entry:
    """Read one tensor of the header; `start` is where the data begins, `size` the file's, both in bytes.

    Raises:
        ModelFileError: a field is missing, of a wrong type, or does not fit the file or the other fields.
    """
    fault = f"{shown(path)}: tensor {quoted(name)}"
    try:
        kind, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{fault}: needs dtype, shape and two data_offsets") from error
    if isinstance(kind, str) and NARROW.match(kind):
        raise ModelFileError(
            f"{fault}: is stored as {quoted(kind)}: weights quantized to floats of so few bits (fp8, mxfp4) cannot be "
            "read; take the model's original weights, or a GGUF file of it"
        )
    if not isinstance(kind, str) or kind not in TYPES:
        raise ModelFileError(f"{fault}: type {reprlib.repr(kind)} is not known; known: {', '.join(TYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(natural(extent) for extent in shape):
        raise ModelFileError(f"{fault}: shape {reprlib.repr(shape)} is no list of sizes")
    if not natural(begin) or not natural(end) or begin > end:
        raise ModelFileError(f"{fault}: data_offsets {reprlib.repr([begin, end])} are no range")
    if start + end > size:
        raise ModelFileError(
            f"{fault}: ends at byte {start + end}, but the file has {size}; it is cut short, fetch it again"
        )
    ours, theirs = TYPES[kind]
    if begin == end and math.prod(filter(None, shape)) > MAX_EMPTY:
        raise ModelFileError(f"{fault}: shape {reprlib.repr(shape)} is absurd")
    if math.prod(shape) * np.dtype(theirs).itemsize != end - begin:
        raise ModelFileError(f"{fault}: {end - begin} bytes do not make {kind} of shape {shape}")
    return Entry(TensorInfo(name, tuple(shape), ours), file, np.dtype(theirs), start + begin, start + end)


def natural(value: Any) -> bool:
    """Whether a JSON value is a whole number of 63 bits (JSON's true is a bool, which Python counts as 1)."""
    return type(value) is int and 0 <= value < 1 << 63


def check_cover(path: Path, entries: list[Entry], start: int, size: int) -> None:
    """Refuse holes, overlaps and bytes that no tensor owns, as the format does.

    Raises:
        ModelFileError: the tensors do not fill the data exactly once.
    """
    filled = start
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != filled:
            what = "overlaps another" if entry.begin < filled else "leaves a hole before it"
            raise ModelFileError(f"{shown(path)}: tensor {quoted(entry.info.name)} {what} in the data")
        filled = entry.end
    if filled != size:
        raise ModelFileError(f"{shown(path)}: {size - filled} bytes after the last tensor")
