"""Files that are no models, each with what a message must say of it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

from support.gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    HIDDEN,
    I32,
    INNER,
    SPECIAL,
    STRING,
    U32,
    U64,
    WORDS,
    Gguf,
    Tensor,
    array,
    starcoder2,
    string,
)
from support.safetensors_bytes import packed

TOKENS, TYPES, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"


def _key(name: str, kind: int, item) -> Callable[[Gguf], None]:
    return lambda file: file.put(_long(name), kind, item)


def _keys(name: str, kind: int, items) -> Callable[[Gguf], None]:
    return lambda file: file.put_array(_long(name), kind, items)


def _without(name: str) -> Callable[[Gguf], None]:
    return lambda file: file.drop(_long(name))


def _raw(name: str | bytes, kind: int, payload: bytes) -> Callable[[Gguf], None]:
    return lambda file: file.keys.append((name, kind, payload))


def _set(**fields) -> Callable[[Gguf], None]:
    def change(file: Gguf) -> None:
        for name, item in fields.items():
            setattr(file, name, item)

    return change


def _tensor(name: str, **fields) -> Callable[[Gguf], None]:
    def change(file: Gguf) -> None:
        tensor = file.tensor(name)
        for field, item in fields.items():
            setattr(tensor, field, item)

    return change


def _more(*fields, **others) -> Callable[[Gguf], None]:
    return lambda file: file.tensors.append(Tensor(*fields, **others))


def _all(*changes: Callable[[Gguf], None]) -> Callable[[Gguf], None]:
    def change(file: Gguf) -> None:
        for one in changes:
            one(file)

    return change


def _long(name: str) -> str:
    return name if name.startswith(("general.", "tokenizer.", "split.")) else f"starcoder2.{name}"


MATRIX = HIDDEN * HIDDEN * 4

HEADERS: dict[str, tuple[Callable[[Gguf], None], str]] = {
    # how the file is built
    "magic": (_set(magic=b"GGML"), "not a GGUF file"),
    "version-0": (_set(version=0), "version 0 is not supported"),
    "version-1": (_set(version=1), "version 1 is not supported"),
    "version-4": (_set(version=4), "version 4 is not supported"),
    "big-endian": (_set(version=3 << 24), "big-endian is not supported"),
    "tensor-count": (_set(tensor_count=1 << 60), "claims 1152921504606846976 tensors"),
    "tensor-count-minus-one": (_set(tensor_count=(1 << 64) - 1), "claims 18446744073709551615 tensors"),
    "tensor-count-one-more": (_set(tensor_count=20), "a tensor's name is empty"),
    "key-count": (_set(key_count=1 << 63), "metadata entries"),
    "key-count-one-more": (_set(key_count=19), "bytes of a tensor's name"),
    "key-count-zero": (_set(key_count=0), "has 8 dimensions"),
    "key-twice": (_raw("general.architecture", STRING, string("llama")), "'general.architecture' stands twice"),
    "key-empty": (_raw("", U32, bytes(4)), "a key is empty"),
    "key-with-zero": (_raw("a\0b", U32, bytes(4)), "holds a zero byte"),
    "key-no-utf8": (_raw(b"\xff\xfe\n", U32, bytes(4)), "a key is no UTF-8"),
    "key-too-long": (_raw("k" * 65536, U32, bytes(4)), "claims 65536 bytes of a key"),
    "key-type": (_raw("a", 13, bytes(8)), "'a' has the unknown type 13"),
    "key-type-minus-one": (_raw("a", 0xFFFFFFFF, bytes(8)), "unknown type 4294967295"),
    "bool-2": (_raw("a", BOOL, b"\2"), "is a bool of the value 2"),
    "bool-array": (_raw("a", ARRAY, struct.pack("<IQ", BOOL, 3) + b"\0\1\xff"), "neither 0 nor 1"),
    "string-length": (_raw("a", STRING, struct.pack("<Q", (1 << 64) - 1)), "bytes of the text of 'a'"),
    "array-length": (_raw("a", ARRAY, struct.pack("<IQ", U32, 1 << 62)), "claims 4611686018427387904 values of 'a'"),
    "array-of-long-strings": (
        _raw("a", ARRAY, struct.pack("<IQQ", STRING, 1, 1 << 63)),
        "the header goes on past the end",
    ),
    "array-of-arrays": (_raw("a", ARRAY, struct.pack("<IQ", ARRAY, 1) + array(U32, [1])), "an array of arrays"),
    "array-type": (_raw("a", ARRAY, struct.pack("<IQ", 77, 1) + bytes(8)), "an array of the unknown type 77"),
    "alignment-0": (_key("general.alignment", U32, 0), "its alignment 0 is no power of two"),
    "alignment-3": (_key("general.alignment", U32, 3), "its alignment 3 is no power of two"),
    "alignment-8": (_key("general.alignment", U32, 8), "its alignment 8 is no power of two from 32"),
    "alignment-huge": (_key("general.alignment", U32, 1 << 31), "is no power of two"),
    "alignment-text": (_key("general.alignment", STRING, "32"), "its alignment '32' is no power of two"),
    "name-twice": (_more("output_norm.bias", (8,), bytes(32)), "the tensor 'output_norm.bias' stands twice"),
    "name-empty": (_more("", (8,), bytes(32)), "a tensor's name is empty"),
    "name-no-utf8": (_more(b"\x80", (8,), bytes(32)), "a tensor's name is no UTF-8"),
    "name-too-long": (_more("t" * 64, (8,), bytes(32)), "claims 64 bytes of a tensor's name"),
    "rank-0": (_more("t", (), bytes(32)), "'t' has 0 dimensions"),
    "rank-5": (_more("t", (1,) * 5, bytes(32)), "'t' has 5 dimensions"),
    "extent-0": (_more("t", (8, 0), b""), "impossible shape"),
    "extent-overflows": (_more("t", (1 << 63, 1 << 63, 4, 4), b""), "cut short: its tensors end at byte"),
    "type-unknown": (_more("t", (8,), bytes(32), kind=4), "'t' has the unknown type 4"),
    "type-minus-one": (_more("t", (8,), bytes(32), kind=0xFFFFFFFF), "unknown type 4294967295"),
    "row-no-block": (_more("t", (33,), bytes(32), kind=8), "impossible shape"),
    "offset-overlaps": (_tensor("blk.0.attn_q.weight", offset=0), "begins at byte 0 of the data"),
    "offset-misaligned": (_tensor("output_norm.bias", offset=33), "begins at byte 33 of the data"),
    "offset-overflows": (_tensor("output_norm.bias", offset=(1 << 64) - 32), "of the data, not at"),
    # what the keys say
    "no-architecture": (_without("general.architecture"), "names no architecture"),
    "architecture-number": (_key("general.architecture", U32, 7), "names no architecture"),
    "architecture-empty": (_key("general.architecture", STRING, ""), "names no architecture"),
    "split": (_key("split.count", U32, 3), "one of 3 parts of a model; merge them"),
    "split-text": (_key("split.count", STRING, "3"), "one of '3' parts"),
    "no-blocks": (_without("block_count"), "'starcoder2.block_count' is missing"),
    "blocks-0": (_key("block_count", U32, 0), "block_count' is 0, not a whole number"),
    "blocks-100000": (_key("block_count", U32, 100_000), "block_count' is 100000, not a whole number"),
    "blocks-text": (_key("block_count", STRING, "1"), "block_count' is '1', not a whole number"),
    "blocks-real": (_key("block_count", F32, 1.0), "block_count' is 1.0, not a whole number"),
    "blocks-too-many": (_key("block_count", U32, 2), "'blk.1.attn_norm.weight' is missing"),
    "blocks-minus-one": (_key("block_count", I32, -1), "block_count' is -1"),
    "no-context": (_without("context_length"), "'starcoder2.context_length' is missing"),
    "context-0": (_key("context_length", U32, 0), "context_length' is 0"),
    "embedding-0": (_key("embedding_length", U32, 0), "embedding_length' is 0"),
    "embedding-huge": (_key("embedding_length", U32, 0xFFFFFFFF), "embedding_length' is 4294967295"),
    "embedding-other": (
        _all(_key("embedding_length", U32, 64), _without("rope.dimension_count")),
        "the tensor 'token_embd.weight' has the shape (32, 262), not (64, 262)",
    ),
    "heads-0": (_key("attention.head_count", U32, 0), "head_count' is 0"),
    "heads-3": (_key("attention.head_count", U32, 3), "3 attention heads do not divide into 2"),
    "heads-more-than-embedding": (_key("attention.head_count", U32, 64), "does not divide into 64 attention heads"),
    "heads-array": (_keys("attention.head_count", U32, [4, 4]), "has 2 values, not one for each block"),
    "kv-heads-0": (_key("attention.head_count_kv", U32, 0), "head_count_kv' is 0"),
    "inner-other": (_key("feed_forward_length", U32, INNER + 1), "has the shape (32, 64), not (32, 65)"),
    "no-epsilon": (_without("attention.layer_norm_epsilon"), "layer_norm_epsilon' is missing"),
    "epsilon-nan": (_key("attention.layer_norm_epsilon", F32, float("nan")), "epsilon' is nan"),
    "rope-base-0": (_key("rope.freq_base", F32, 0.0), "freq_base' is 0.0"),
    "rope-dimensions": (_key("rope.dimension_count", U32, 6), "dimension_count' is 6, not the 8"),
    "no-tokenizer": (_without("tokenizer.ggml.model"), "'tokenizer.ggml.model' is missing"),
    "no-tokens": (_without(TOKENS), "holds no vocabulary"),
    "tokens-empty": (_keys(TOKENS, STRING, []), "holds no vocabulary"),
    "tokens-numbers": (_keys(TOKENS, U32, [1, 2]), "holds no vocabulary"),
    "tokens-one-less": (_keys(TOKENS, STRING, WORDS[:-1]), f"'{TYPES}' has {len(WORDS)} values for {len(WORDS) - 1}"),
    "types-text": (_keys(TYPES, STRING, ["a"] * len(WORDS)), f"'{TYPES}' is no array of int32"),
    "types-scalar": (_key(TYPES, I32, 1), f"'{TYPES}' is no array of int32"),
    "merges-numbers": (_keys(MERGES, U32, [1]), f"'{MERGES}' is no array of strings"),
    "bos-outside": (_key("tokenizer.ggml.bos_token_id", U32, len(WORDS)), "bos_token_id' is 262, no id of the 262"),
    "eos-text": (_key("tokenizer.ggml.eos_token_id", STRING, "end"), "eos_token_id' is 'end', no id"),
    "vocabulary-other": (
        _all(_keys(TOKENS, STRING, (*WORDS, "x")), _keys(TYPES, I32, [1] * (len(WORDS) + 1))),
        "the tensor 'token_embd.weight' has the shape (32, 262), not (32, 263)",
    ),
    "no-tensors": (_set(tensors=[]), "claims 1 blocks but holds 0 tensors"),
    "no-output-norm": (lambda file: file.remove("output_norm.weight"), "'output_norm.weight' is missing"),
    "no-bias": (lambda file: file.remove("blk.0.ffn_up.bias"), "'blk.0.ffn_up.bias' is missing"),
    "transposed": (_tensor("blk.0.ffn_up.weight", shape=(INNER, HIDDEN)), "has the shape (64, 32), not (32, 64)"),
    "flat": (_tensor("blk.0.attn_q.weight", shape=(HIDDEN * HIDDEN,)), "has the shape (1024,), not (32, 32)"),
}
"""GGUF files that are refused without llama.cpp."""

FATAL: dict[str, tuple[Callable[[Gguf], None], str]] = {
    "token-twice": (_keys(TOKENS, STRING, (*WORDS[:-1], "de")), "GGML_ASSERT(id_to_token.size() =="),
    "rope-scaling": (_key("rope.scaling.type", STRING, "sideways"), "GGML_ASSERT(hparams.rope_scaling"),
    "experts-used": (_key("expert_used_count", U32, 3), "GGML_ASSERT(n_expert_used_max <="),
    "experts": (_key("expert_count", U32, 1 << 31), "GGML_ASSERT(hparams.n_expert <="),
    "expert-groups": (_key("expert_group_count", U32, 3), "GGML_ASSERT(hparams.n_expert_groups =="),
    "layers-ahead": (_key("nextn_predict_layers", U32, 99), "GGML_ASSERT(hparams.n_layer_nextn <="),
    "norm-of-integers": (_tensor("blk.0.attn_norm.weight", kind=26), "unsupported types"),
    "embedding-of-integers": (_tensor("token_embd.weight", kind=26), "SIGABRT"),
    "matrix-of-integers": (_tensor("blk.0.attn_q.weight", kind=26), "SIGSEGV"),
    "sentencepiece-without-bytes": (
        _all(
            _key("tokenizer.ggml.model", STRING, "llama"),
            _keys("tokenizer.ggml.scores", F32, [0.0] * len(WORDS)),
        ),
        "crashes on it (SIGABRT)",
    ),
}
"""GGUF files that pass every check of ours, and end the process that hands them to llama.cpp."""

REFUSED: dict[str, tuple[Callable[[Gguf], None], str]] = {
    "pre-tokenizer": (_key("tokenizer.ggml.pre", STRING, "un\nknown"), "unknown pre-tokenizer type: 'un"),
    "alignment-u64": (_key("general.alignment", U64, 32), "must be of type u32"),
    "context-u64": (_key("context_length", U64, 64), "has wrong type u64"),
    "value-length": (_key("attention.value_length", U32, 16), "has wrong shape"),
    "tensor-nobody-knows": (_more("blk.0.attn_sinks.weight", (4,), bytes(16)), "wrong number of tensors"),
    "architecture-nobody-knows": (_key("general.architecture", STRING, "nobody-knows"), "unknown model architecture"),
    "model-of-images": (_key("general.architecture", STRING, "clip"), "CLIP cannot be used"),
    "weights-nan": (_tensor("blk.0.attn_q.weight", data=b"\xff" * MATRIX), "it computes NaN"),
    "no-token-for-text": (
        _keys(TOKENS, STRING, [*SPECIAL, *(f"▁{number}" for number in range(len(WORDS) - 4))]),
        "no token for any text",
    ),
}
"""GGUF files that llama.cpp refuses in its own words, or that compute nonsense."""


def _cut(content: bytes, keep: float) -> bytes:
    return content[: int(len(content) * keep)]


def contents() -> dict[str, tuple[bytes, str]]:
    """Every malformed GGUF file by name: its bytes, and what a message must say of it."""
    whole = starcoder2().encode()
    found = {
        "empty": (b"", "the file is empty"),
        "one-byte": (b"G", "not a GGUF file"),
        "magic-alone": (b"GGUF", "cut short"),
        "half-version": (b"GGUF\3\0", "cut short"),
        "no-counts": (whole[:8], "cut short"),
        "text": (b"<html>404</html>", "not a GGUF file"),
        "zeros": (bytes(4096), "not a GGUF file"),
        "git-lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs's pointer"),
        "cut-in-header": (whole[:3000], "cut short"),
        "cut-in-data": (_cut(whole, 0.6), "cut short: its tensors end at byte"),
        "last-byte": (whole[:-1], "cut short: its tensors end at byte"),
        "garbage-after-counts": (whole[:24] + b"\xa5" * 5000, "absurd or cut short"),
    }
    for name, (change, says) in {**HEADERS, **FATAL, **REFUSED}.items():
        file = starcoder2()
        change(file)
        found[name] = file.encode(), says
    return found


def write_ggufs(folder: Path) -> dict[Path, str]:
    """Write them all; path → what a message must say."""
    found = {}
    for name, (content, says) in contents().items():
        path = folder / f"{name}.gguf"
        path.write_bytes(content)
        found[path] = says
    return found | _special(folder)


def _special(folder: Path) -> dict[Path, str]:
    """What bears the name of a GGUF file and is none, and names that no message must break on."""
    pipe, loop, gone = folder / "pipe.gguf", folder / "loop.gguf", folder / "gone.gguf"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    gone.symlink_to(folder / "nothing")
    device, folder_ = folder / "device.gguf", folder / "folder.gguf"
    device.symlink_to("/dev/zero")
    folder_.mkdir()
    newline = folder / "new\nline.gguf"
    newline.write_bytes(b"GGUFGGUF")
    strange = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\x1b[31m.gguf"))
    strange.write_bytes(starcoder2().encode()[:-1])
    return {
        pipe: "a named pipe, not a file",
        loop: "no such file",
        gone: "no such file",
        device: "a device, not a file",
        folder_: "holds no config.json",
        newline: "is not supported",
        strange: "cut short",
    }


CONFIG = {"model_type": "starcoder2", "torch_dtype": "float32"}


def entry(shape: tuple[int, ...] = (2, 3), offsets: tuple[int, ...] = (0, 24)) -> dict[str, object]:
    """A tensor in a safetensors header."""
    return {"dtype": "F32", "shape": list(shape), "data_offsets": list(offsets)}


DATA = bytes(24)
GOOD = packed({"a": entry()}, DATA)
SAFETENSORS: dict[str, tuple[dict[str, bytes], str]] = {
    "empty-weights": ({"model.safetensors": b""}, "cut short"),
    "length-alone": ({"model.safetensors": struct.pack("<Q", 9)}, "cut short"),
    "length-overflows": ({"model.safetensors": b"\xff" * 64}, "cut short"),
    "header-cut": ({"model.safetensors": GOOD[:20]}, "cut short"),
    "data-cut": ({"model.safetensors": GOOD[:-1]}, "ends at byte"),
    "no-json": ({"model.safetensors": packed(b"{" * 9)}, "not valid JSON"),
    "utf-16": ({"model.safetensors": packed('{"a": 1}'.encode("utf-16"))}, "not valid JSON"),
    "deep": ({"model.safetensors": packed(b'{"a":' * 50_000)}, "not valid JSON"),
    "padded-with-zeros": ({"model.safetensors": packed(b"{}\0\0\0\0\0\0")}, "not valid JSON"),
    "list": ({"model.safetensors": packed([1])}, "not a JSON object"),
    "twice": ({"model.safetensors": packed(b'{"a":1,"a":2}')}, "key 'a' stands twice"),
    "long-number": ({"model.safetensors": packed(b'{"a":' + b"9" * 9999 + b"}")}, "not valid JSON"),
    "huge-number": ({"model.safetensors": packed({"a": entry((10**4000, 3))}, DATA)}, "is no list of sizes"),
    "huge-and-empty": ({"model.safetensors": packed({"a": entry((0, 1 << 62), (0, 0))})}, "is absurd"),
    "minus-zero": (
        {"model.safetensors": packed(b'{"a":{"dtype":"F32","shape":[-0.0],"data_offsets":[0,0]}}')},
        "sizes",
    ),
    "not-a-number": (
        {"model.safetensors": packed(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}}')},
        "sizes",
    ),
    "overlap": ({"model.safetensors": packed({"a": entry(), "b": entry()}, DATA)}, "overlaps"),
    "hole": ({"model.safetensors": packed({"a": entry((2, 3), (8, 32))}, bytes(32))}, "leaves a hole"),
    "long-name": ({"model.safetensors": packed({"n" * 9999: 1})}, "needs dtype"),
    "no-weights": ({}, "holds no .safetensors file"),
    "index-outside": (
        {"model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd"}}'},
        "a file outside the directory",
    ),
    "index-missing": ({"model.safetensors.index.json": b'{"weight_map": {"a": "1.safetensors"}}'}, "missing, though"),
    "index-number": ({"model.safetensors.index.json": b'{"weight_map": {"a": 1}}'}, "has no weight_map"),
    "index-deep": ({"model.safetensors.index.json": b"[" * 99_999}, "not valid JSON"),
    "config-list": ({"config.json": b"[]"}, "not a JSON object"),
    "config-empty": ({"config.json": b""}, "not valid JSON"),
    "config-deep": ({"config.json": b'{"a":' * 99_999}, "not valid JSON"),
    "config-unknown": ({"config.json": b'{"model_type": "none"}', "model.safetensors": GOOD}, "cannot be converted"),
}
"""Directories by name: files besides a config.json and tokenizer.json, and what a message must say."""


def write_directories(folder: Path) -> dict[Path, str]:
    """Write them all; path → what a message must say."""
    found = {}
    for name, (files, says) in SAFETENSORS.items():
        path = folder / name
        path.mkdir()
        for file, content in {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}", **files}.items():
            (path / file).write_bytes(content)
        found[path] = says
    pipe = folder / "pipe"
    pipe.mkdir()
    (pipe / "config.json").write_text(json.dumps(CONFIG))
    (pipe / "tokenizer.json").write_text("{}")
    os.mkfifo(pipe / "model.safetensors")
    os.mkfifo(pipe / "README.md")
    return found | {pipe: "a named pipe, not a file"}
