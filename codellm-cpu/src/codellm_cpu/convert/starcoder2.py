"""StarCoder2 in GGUF: tensor names and header keys.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md) for the keys, `gguf.constants` (MODEL_ARCH.STARCODER2) for
the tensor names. llama.cpp rotates query and key halves as transformers does (its "neox" rope), so no row is permuted.
It reads the sliding window of other architectures, but not StarCoder2's: it attends to the whole context, and so
computes otherwise than transformers past the window. The key is written all the same, for readers that use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from codellm.errors import ModelFileError
from codellm.sources.starcoder2 import starcoder2_shapes

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURE = "starcoder2"

MAX_BLOCKS = 512
"""llama.cpp's LLAMA_MAX_LAYERS: it ends the process above."""

TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "vocab_size",
)

# What the compute graph takes for granted; transformers' defaults where config.json is silent.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu_pytorch_tanh",),
    "norm_type": ("layer_norm",),
    "mlp_type": ("default",),
}

DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""A buffer that old checkpoints store though it follows from the configuration."""


def check(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that GGUF's StarCoder2 cannot express; `where` names it in messages.

    Raises:
        ModelFileError: names the field.
    """
    for field in SIZES:
        value = config.get(field)
        if type(value) is not int or not 0 < value < 2**31:
            raise ModelFileError(f"{where}: {field} is {value!r}, not a positive whole number")
    hidden, heads, kv_heads = (config[field] for field in ("hidden_size", *SIZES[3:5]))
    if hidden % heads or heads % kv_heads:
        raise ModelFileError(f"{where}: {hidden} hidden, {heads} heads, {kv_heads} key-value heads do not divide")
    if config.get("head_dim") not in (None, hidden // heads):
        raise ModelFileError(f"{where}: head_dim {config['head_dim']!r} is not hidden_size / num_attention_heads")
    if config["num_hidden_layers"] > MAX_BLOCKS:
        raise ModelFileError(f"{where}: {config['num_hidden_layers']} layers, more than llama.cpp's {MAX_BLOCKS}")
    for field, known in FIXED.items():
        if config.get(field, known[0]) not in known:
            raise ModelFileError(f"{where}: {field} {config[field]!r} has no GGUF form; known: {', '.join(known)}")
    for field in ("norm_epsilon", "sliding_window"):
        value = config.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise ModelFileError(f"{where}: {field} is {value!r}, not a positive number")
    rope_theta(config, where)


def rope_theta(config: Mapping[str, Any], where: str) -> float:
    """The rotary base: `rope_parameters` in what transformers 5 writes, `rope_theta` before.

    Raises:
        ModelFileError: it is not a positive number, or the rope is scaled.
    """
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise ModelFileError(f"{where}: rope_parameters is {parameters!r}, not an object")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise ModelFileError(f"{where}: rope type {kind!r} is not supported; known: default")
    theta = parameters.get("rope_theta", config.get("rope_theta", 10000.0))
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < 1e30:
        raise ModelFileError(f"{where}: rope_theta is {theta!r}, not a positive number")
    return float(theta)


def gguf_name(name: str) -> str:
    """A tensor's name in GGUF; `name` is one of `shapes`."""
    stem, _, part = name.rpartition(".")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{part}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{BLOCK_NAMES[inner]}.{part}"


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor that the checkpoint must hold."""
    return starcoder2_shapes(config)


def zeros(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of the biases that llama.cpp demands and this checkpoint lacks: zeros compute the same."""
    known = shapes(config)
    full = starcoder2_shapes({**config, "use_bias": True})
    return {name: shape for name, shape in full.items() if name not in known}


def ignorable(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor outside `shapes` adds nothing: transformers ignores a tied model's own output too."""
    tied = bool(config.get("tie_word_embeddings", True))
    return DERIVED.fullmatch(name) is not None or (tied and name == "lm_head.weight")


def add_keys(writer: GGUFWriter, config: Mapping[str, Any], where: str) -> None:
    """Write the keys that llama.cpp needs to build the model; `config` has passed `check`."""
    head = config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_eps(float(config.get("norm_epsilon") or 1e-5))
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope_theta(config, where))
    writer.add_vocab_size(config["vocab_size"])
    if config.get("sliding_window") is not None:
        writer.add_sliding_window(int(config["sliding_window"]))
