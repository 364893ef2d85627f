"""Whether a header is one of a model: the keys that llama.cpp uses, their values, and the tensors they speak of.

llama.cpp checks much of this itself, but some of it with assertions that end the process, and none of it in words that
say what to do. The families that codellm converts are checked whole; of any other architecture only what all share.
Source: llama.cpp, src/llama-model.cpp (load_hparams), src/llama-vocab.cpp (load) and src/models/<architecture>.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import attrs

from codellm.errors import ModelFileError
from codellm.sources.regular import quoted, shown
from codellm_cpu.llama.header import Array, Header, TensorEntry

_SIZES = {
    "block_count": (1, 512),  # llama-hparams.h, LLAMA_MAX_LAYERS
    "context_length": (1, 1 << 31),
    "embedding_length": (1, 1 << 20),
}
"""Whole numbers that every architecture has by key, with the least and the most that any model has."""

_RANGES = {
    "feed_forward_length": (1, 1 << 24),
    "attention.head_count": (1, 1 << 16),
    "attention.head_count_kv": (1, 1 << 16),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
}
"""The same of the families below: 0 means something elsewhere. One number for each block, as an array, is allowed."""

_NEEDED = (*_SIZES, "feed_forward_length", "attention.head_count")

# Sides of a tensor: H embedding, Q heads, K key-value heads, D one head, F feed-forward, V vocabulary.
_ENDS = {"token_embd.weight": "HV", "output.weight": "HV", "output_norm.weight": "H", "output_norm.bias": "H"}
_BLOCK = {
    "attn_norm.weight": "H",
    "attn_norm.bias": "H",
    "attn_q.weight": "HQ",
    "attn_q.bias": "Q",
    "attn_k.weight": "HK",
    "attn_k.bias": "K",
    "attn_q_norm.weight": "D",
    "attn_k_norm.weight": "D",
    "attn_v.weight": "HK",
    "attn_v.bias": "K",
    "attn_output.weight": "QH",
    "attn_output.bias": "H",
    "ffn_norm.weight": "H",
    "ffn_norm.bias": "H",
    "ffn_gate.weight": "HF",
    "ffn_up.weight": "HF",
    "ffn_up.bias": "F",
    "ffn_down.weight": "FH",
    "ffn_down.bias": "H",
}
_ATTENTION = ("attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight")
_DENSE = ("ffn_norm.weight", "ffn_up.weight", "ffn_down.weight")
_FUSED = ("attn_q.weight", "attn_k.weight", "attn_v.weight")
"""What some files keep in one tensor instead."""
_EXPERTS = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
"""What a mixture of experts keeps in other tensors."""


@attrs.frozen
class Family:
    """What the files of one architecture must hold: the key of its norms' epsilon, and tensors of each block."""

    epsilon: str
    block: tuple[str, ...]
    ends: tuple[str, ...] = ("token_embd.weight", "output_norm.weight")


_RMS = Family("attention.layer_norm_rms_epsilon", (*_ATTENTION, *_DENSE, "ffn_gate.weight"))
FAMILIES = {
    "starcoder2": Family(
        "attention.layer_norm_epsilon",
        (
            *_ATTENTION,
            *_DENSE,
            *("attn_norm.bias", "attn_output.bias", "ffn_norm.bias", "ffn_up.bias", "ffn_down.bias"),
        ),
        ("token_embd.weight", "output_norm.weight", "output_norm.bias"),
    ),
    "llama": _RMS,
    "qwen2": _RMS,
    "qwen3": Family(_RMS.epsilon, (*_RMS.block, "attn_q_norm.weight", "attn_k_norm.weight")),
}

_USED_IDS = ("bos", "eos", "eot", "fim_pre", "fim_suf", "fim_mid", "fim_rep", "fim_sep")
"""Special tokens that a run uses; llama.cpp overlooks an id outside of the vocabulary, and would never end a text."""


def check(path: Path, header: Header) -> None:
    """Check that the header of `path` is one of a model that llama.cpp can be handed.

    Raises:
        ModelFileError: names the key or tensor that is missing, of a wrong type, or does not fit the others.
    """
    parts = header.scalars.get("split.count", 0)
    if parts not in (0, 1):
        fault = f"it is one of {_brief(parts)} parts of a model"
        raise ModelFileError(f"{shown(path)}: {fault}; merge them first with llama-gguf-split --merge")
    fault = _Check(header).fault()
    if fault:
        raise ModelFileError(f"{shown(path)}: {fault}; fetch or convert the model again")


class _Check:
    """Checks of one header: each method returns the first fault it finds, empty where there is none."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._scalars, self._arrays = header.scalars, header.arrays

    def fault(self) -> str:
        if not isinstance(self._scalars.get("general.architecture"), str) or not self._header.architecture:
            return "the header names no architecture (general.architecture)"
        return self._numbers(_SIZES) or self._blocks() or self._vocabulary() or self._family()

    def _key(self, key: str) -> str:
        return f"{self._header.architecture}.{key}"

    def _size(self, key: str, default: int = 0) -> int:
        return self._header.number(key) or default

    def _numbers(self, ranges: Mapping[str, tuple[int, int]]) -> str:
        for key, (least, most) in ranges.items():
            name = self._key(key)
            value = self._scalars.get(name, least)
            if type(value) is not int or not least <= value <= most:
                return f"the key {quoted(name)} is {_brief(value)}, not a whole number from {least} to {most}"
            array = self._arrays.get(name)
            if array is not None and array.length != self._size("block_count"):
                return f"the key {quoted(name)} has {array.length} values, not one for each block"
        return ""

    def _blocks(self) -> str:
        blocks, tensors = self._size("block_count"), len(self._header.tensors)
        return f"it claims {blocks} blocks but holds {tensors} tensors" if blocks > tensors else ""

    def _vocabulary(self) -> str:
        if "tokenizer.ggml.model" not in {**self._scalars, **self._arrays}:
            return ""  # of the families it is missing; another may be no model of text at all, as llama.cpp will say
        tokens = self._arrays.get("tokenizer.ggml.tokens")
        if tokens is None or tokens.kind != "string" or not tokens.length:
            return "it holds no vocabulary: tokenizer.ggml.tokens is no array of strings"
        for key, kinds in (("token_type", ("int32",)), ("scores", ("float32", "int32"))):
            name = f"tokenizer.ggml.{key}"
            array = self._arrays.get(name, Array(kinds[0], tokens.length))
            if name in self._scalars or array.kind not in kinds:
                return f"the key {name!r} is no array of {' or '.join(kinds)}"
            if array.length != tokens.length:
                return f"the key {name!r} has {array.length} values for {tokens.length} tokens"
        merges = self._arrays.get("tokenizer.ggml.merges", Array("string", 0))
        if "tokenizer.ggml.merges" in self._scalars or merges.kind != "string":
            return "the key 'tokenizer.ggml.merges' is no array of strings"
        for name in (f"tokenizer.ggml.{role}_token_id" for role in _USED_IDS):
            id = self._scalars.get(name, 0)
            if name in self._arrays or type(id) is not int or not 0 <= id < tokens.length:
                return f"the key {name!r} is {_brief(id)}, no id of the {tokens.length} tokens"
        return ""

    def _family(self) -> str:
        family = FAMILIES.get(self._header.architecture)
        if family is None:
            return ""
        needed = (*map(self._key, _NEEDED), "tokenizer.ggml.model")
        missing = next((key for key in needed if key not in {**self._scalars, **self._arrays}), None)
        if missing:
            return f"the key {missing!r} is missing"
        fault = self._numbers(_RANGES) or self._reals(family) or self._missing(family)
        if any(self._key(key) in self._arrays for key in (*_SIZES, *_RANGES)):
            return fault  # blocks of different sizes are left to llama.cpp
        return fault or self._heads() or self._shapes()

    def _reals(self, family: Family) -> str:
        epsilon = self._scalars.get(self._key(family.epsilon))
        if not isinstance(epsilon, float) or not 0 <= epsilon < 1:  # false of NaN too
            return f"the key {self._key(family.epsilon)!r} is {_brief(epsilon)}, not a number from 0 to 1"
        base = self._scalars.get(self._key("rope.freq_base"), 1.0)
        if not isinstance(base, float) or not 0 < base < math.inf:
            return f"the key {self._key('rope.freq_base')!r} is {_brief(base)}, not a number above 0"
        return ""

    def _heads(self) -> str:
        heads, hidden = self._size("attention.head_count"), self._size("embedding_length")
        groups = self._size("attention.head_count_kv", heads)
        if heads % groups:
            return f"{heads} attention heads do not divide into {groups} key-value heads"
        if hidden % heads and not self._size("attention.key_length"):
            return f"an embedding of {hidden} does not divide into {heads} attention heads"
        head_dim = self._size("attention.key_length", hidden // heads)
        rotated = self._scalars.get(self._key("rope.dimension_count"), head_dim)
        if rotated != head_dim:
            return f"the key {self._key('rope.dimension_count')!r} is {_brief(rotated)}, not the {head_dim} of a head"
        return ""

    def _missing(self, family: Family) -> str:
        tensors = self._header.tensors
        names = list(family.ends)
        for block in range(self._size("block_count")):
            elsewhere = set(_EXPERTS) if self._size("expert_count") else set()
            if f"blk.{block}.attn_qkv.weight" in tensors:
                elsewhere.update(_FUSED)
            names += [f"blk.{block}.{name}" for name in family.block if name not in elsewhere]
        missing = next((name for name in names if name not in tensors), None)
        return f"the tensor {missing!r} is missing" if missing else ""

    def _shapes(self) -> str:
        if self._size("expert_count"):
            return ""
        hidden, heads = self._size("embedding_length"), self._size("attention.head_count")
        head_dim = self._size("attention.key_length", hidden // heads)
        groups = self._size("attention.head_count_kv", heads)
        sides = {"H": hidden, "Q": heads * head_dim, "K": groups * head_dim, "D": head_dim}
        sides |= {"F": self._size("feed_forward_length"), "V": self._arrays["tokenizer.ggml.tokens"].length}
        for tensor in self._header.tensors.values():
            expected = tuple(sides[side] for side in _sides(tensor))
            if expected and tensor.shape != expected:
                return f"the tensor {tensor.name!r} has the shape {tensor.shape}, not {expected} as the keys say"
        return ""


def _sides(tensor: TensorEntry) -> str:
    """The sides of a tensor by its name, empty for one that we know nothing of."""
    if tensor.name.startswith("blk."):
        return _BLOCK.get(tensor.name.split(".", 2)[-1], "")
    return _ENDS.get(tensor.name, "")


def _brief(value: object) -> str:
    """A value from a file in few words."""
    return "missing" if value is None else quoted(value) if isinstance(value, str) else repr(value)
