"""A tiny StarCoder2 with random weights as a real GGUF file, so that tests run on real llama.cpp without a download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from codellm.sources import ModelSource
from codellm.tokenizer import byte_of

SPECIAL = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<file_sep>")
MERGES = ("d e", "de f", "Ġ Ġ", "ĠĠ ĠĠ", "r e", "re t", "u r", "ur n", "ret urn", "Ġ return", "i n", "o r", "Ġ Ġreturn")
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, CONTEXT = 256, 2, 4, 2, 512, 512


def vocabulary(special: tuple[str, ...] = ()) -> list[str]:
    """Special tokens, further ones, every byte, every merge."""
    characters = sorted(byte_of(), key=lambda character: byte_of()[character])
    return [*SPECIAL, *special, *characters, *(merge.replace(" ", "") for merge in MERGES)]


def write_gguf(
    path: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    nan: int | None = None,
    special: tuple[str, ...] = (),
    roles: Mapping[str, int] = MappingProxyType({}),
    **keys: int,
) -> Path:
    """A StarCoder2 with seeded random weights, of one id NaN.

    `special` are further special tokens, after the usual ones; `roles` name token ids by GGUF's roles (`eot`,
    `fim_pad`, …); `keys` are further whole numbers of the header.
    """
    import gguf

    words = vocabulary(special)
    writer = gguf.GGUFWriter(path, "starcoder2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_file_type(0)
    for key, value in keys.items():
        writer.add_uint32(f"starcoder2.{key.replace('__', '.')}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("starcoder")
    writer.add_token_list(words)
    writer.add_token_types([3 if word in (*SPECIAL, *special) else 1 for word in words])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for role, id in roles.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", id)
    writer.add_add_bos_token(False)

    rng = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        data = rng.standard_normal((rows, columns)) * scale / np.sqrt(columns)
        writer.add_tensor(f"{name}.weight", data.astype(np.float32))
        writer.add_tensor(f"{name}.bias", (rng.standard_normal(rows) * 0.1).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(HIDDEN, np.float32))

    embedding = (rng.standard_normal((len(words), HIDDEN)) * 0.1).astype(np.float32)  # logits of spread 1.6
    if not tied:
        writer.add_tensor("output.weight", embedding[::-1].copy())
    if nan is not None:
        embedding[nan] = np.nan
    writer.add_tensor("token_embd.weight", embedding)
    norm("output_norm")
    kv = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        matrix(f"blk.{layer}.attn_q", HIDDEN, HIDDEN, 2.0)
        matrix(f"blk.{layer}.attn_k", kv, HIDDEN, 2.0)
        matrix(f"blk.{layer}.attn_v", kv, HIDDEN)
        matrix(f"blk.{layer}.attn_output", HIDDEN, HIDDEN, 3.0)
        matrix(f"blk.{layer}.ffn_up", INNER, HIDDEN, 2.0)
        matrix(f"blk.{layer}.ffn_down", HIDDEN, INNER, 3.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def source_of(path: Path) -> ModelSource:
    """The source that core makes of a GGUF file."""
    return ModelSource(name=path.name, format="gguf", digest="0" * 64, path=path, files=(path,))
