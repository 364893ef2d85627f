"""StarCoder2 checkpoints: layer norms with biases, a GELU feed-forward layer, a sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from codellm.errors import ModelFileError
from codellm.sources.architecture import Architecture, Config


class Starcoder2(Architecture):
    """The published 3B, 7B and 15B, and whatever has their form."""

    name: ClassVar[str] = "starcoder2"
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_act": ("gelu_pytorch_tanh",),
        "norm_type": ("layer_norm",),
        "mlp_type": ("default",),
    }
    epsilon: ClassVar[tuple[str, float]] = ("norm_epsilon", 1e-5)
    tied: ClassVar[bool] = True

    def sliding_window(self, raw: Mapping[str, Any], where: str) -> int | None:
        window = raw.get("sliding_window")
        if window is not None and (type(window) is not int or window <= 0):
            raise ModelFileError(f"{where}: sliding_window is {window!r}, not a positive whole number")
        return window

    def shapes(self, config: Config) -> dict[str, tuple[int, ...]]:
        return starcoder2_shapes(config.raw)


def starcoder2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor, in the order of the forward pass; H hidden size, F feed-forward, V vocabulary.

    `config` is a config.json whose sizes are positive integers. Linear weights are [out, in]. The norms have a bias
    always, the projections where `use_bias` is set; a tied model has no `lm_head.weight`, its output being the
    embedding. Source: transformers, models/starcoder2/modeling_starcoder2.py.
    """
    hidden, intermediate, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = hidden // config["num_attention_heads"]
    keys = head_dim * config["num_key_value_heads"]
    projections = {  # name: (out, in)
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.c_fc": (intermediate, hidden),
        "mlp.c_proj": (hidden, intermediate),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{norm}.weight"] = shapes[f"{prefix}{norm}.bias"] = (hidden,)
        for name, shape in projections.items():
            shapes[f"{prefix}{name}.weight"] = shape
            if config.get("use_bias", True):
                shapes[f"{prefix}{name}.bias"] = shape[:1]
    shapes["model.norm.weight"] = shapes["model.norm.bias"] = (hidden,)
    if not config.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = (vocabulary, hidden)
    return shapes
