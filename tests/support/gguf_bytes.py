"""GGUF files byte by byte, so that a test can write any wrong one. Format: github.com/ggml-org/ggml, docs/gguf.md."""

from __future__ import annotations

import math
import struct

import attrs
import numpy as np

from codellm.tokenizer import byte_of

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
HIDDEN, HEADS, KV_HEADS, INNER, CONTEXT = 32, 4, 2, 64, 64
SPECIAL = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>")
WORDS = (*SPECIAL, *byte_of(), "de", "def")


def string(text: str | bytes) -> bytes:
    """A string as it stands in a file."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(kind: int, item) -> bytes:
    """A scalar as it stands in a file."""
    return string(item) if kind == STRING else struct.pack("<" + FORMATS[kind], item)


def array(kind: int, items) -> bytes:
    """An array as it stands in a file."""
    return struct.pack("<IQ", kind, len(items)) + b"".join(value(kind, item) for item in items)


@attrs.define
class Tensor:
    """A tensor's entry and data; without an offset it comes right after the one before."""

    name: str | bytes
    shape: tuple[int, ...]
    data: bytes
    kind: int = 0
    offset: int | None = None


@attrs.define
class Gguf:
    """A file's parts. `keys`: key, type and payload; counts that are None are what they should be."""

    keys: list[tuple[str | bytes, int, bytes]] = attrs.field(factory=list)
    tensors: list[Tensor] = attrs.field(factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def put(self, key: str, kind: int, item) -> None:
        """Set a scalar, in the place of the old one."""
        self.put_bytes(key, kind, value(kind, item))

    def put_array(self, key: str, kind: int, items) -> None:
        """Set an array."""
        self.put_bytes(key, ARRAY, array(kind, items))

    def put_bytes(self, key: str, kind: int, payload: bytes) -> None:
        """Set a key to whatever bytes."""
        place = next((place for place, entry in enumerate(self.keys) if entry[0] == key), len(self.keys))
        self.keys[place : place + 1] = [(key, kind, payload)]

    def drop(self, key: str) -> None:
        """Leave a key out."""
        self.keys = [entry for entry in self.keys if entry[0] != key]

    def tensor(self, name: str) -> Tensor:
        """A tensor by its name."""
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def remove(self, name: str) -> None:
        """Leave a tensor out."""
        self.tensors.remove(self.tensor(name))

    def header(self) -> bytes:
        """Everything before the data."""
        counts = (self.tensor_count, len(self.tensors)), (self.key_count, len(self.keys))
        parts = [self.magic, struct.pack("<I", self.version)]
        parts += [struct.pack("<Q", real if claimed is None else claimed) for claimed, real in counts]
        parts += [string(key) + struct.pack("<I", kind) + payload for key, kind, payload in self.keys]
        offset = 0
        for tensor in self.tensors:
            parts.append(string(tensor.name) + struct.pack("<I", len(tensor.shape)))
            parts.append(b"".join(struct.pack("<Q", extent) for extent in tensor.shape))
            parts.append(struct.pack("<IQ", tensor.kind, offset if tensor.offset is None else tensor.offset))
            offset += self._padded(len(tensor.data))
        return b"".join(parts)

    def encode(self) -> bytes:
        """The whole file."""
        header = self.header()
        data = b"".join(tensor.data.ljust(self._padded(len(tensor.data)), b"\0") for tensor in self.tensors)
        return header.ljust(self._padded(len(header)), b"\0") + data

    def _padded(self, size: int) -> int:
        return -(-size // self.alignment) * self.alignment


def starcoder2() -> Gguf:
    """A whole StarCoder2 of one block and 140 kB, with seeded random weights."""
    file = Gguf()
    file.put("general.architecture", STRING, "starcoder2")
    for key, number in {
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "block_count": 1,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "rope.dimension_count": HIDDEN // HEADS,
    }.items():
        file.put(f"starcoder2.{key}", U32, number)
    file.put("starcoder2.attention.layer_norm_epsilon", F32, 1e-5)
    file.put("starcoder2.rope.freq_base", F32, 1e4)
    file.put("tokenizer.ggml.model", STRING, "gpt2")
    file.put("tokenizer.ggml.pre", STRING, "starcoder")
    file.put_array("tokenizer.ggml.tokens", STRING, WORDS)
    file.put_array("tokenizer.ggml.token_type", I32, [3 if word in SPECIAL else 1 for word in WORDS])
    file.put_array("tokenizer.ggml.merges", STRING, ("d e", "de f"))
    file.put("tokenizer.ggml.bos_token_id", U32, 0)
    file.put("tokenizer.ggml.eos_token_id", U32, 0)
    file.put("tokenizer.ggml.add_bos_token", BOOL, 0)
    rng = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        data = (rng.standard_normal(math.prod(shape)) / np.sqrt(shape[0])).astype("<f4")
        file.tensors.append(Tensor(name, shape, data.tobytes()))

    kv = HIDDEN // HEADS * KV_HEADS
    add("token_embd.weight", HIDDEN, len(WORDS))
    add("output_norm.weight", HIDDEN)
    add("output_norm.bias", HIDDEN)
    for name, *shape in (
        ("attn_norm", HIDDEN),
        ("ffn_norm", HIDDEN),
        ("attn_q", HIDDEN, HIDDEN),
        ("attn_k", HIDDEN, kv),
        ("attn_v", HIDDEN, kv),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_up", HIDDEN, INNER),
        ("ffn_down", INNER, HIDDEN),
    ):
        add(f"blk.0.{name}.weight", *shape)
        add(f"blk.0.{name}.bias", shape[-1])
    return file
