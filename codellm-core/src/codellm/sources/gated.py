"""Llama (CodeLlama, DeepSeek-Coder), Qwen2 (Qwen2.5-Coder) and Qwen3 checkpoints.

They share RMS norms without biases and a feed-forward layer with a SiLU gate.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

from codellm.errors import ModelFileError
from codellm.sources.architecture import Architecture, Config


class Gated(Architecture):
    """Tensor names and shapes; a subclass says which projections have biases."""

    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {"hidden_act": ("silu",)}
    epsilon: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    normed_heads: ClassVar[bool] = False
    """Whether each head's query and key are normed before they are rotated."""

    @abc.abstractmethod
    def biased(self, config: Config) -> tuple[str, ...]:
        """Prefixes of the projections that have a bias."""

    def shapes(self, config: Config) -> dict[str, tuple[int, ...]]:
        hidden, intermediate = config.hidden_size, config.intermediate_size
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        head_norms = {"self_attn.q_norm": (config.head_dim,), "self_attn.k_norm": (config.head_dim,)}
        projections = {  # name: (out, in), or (out,) of a norm
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            **(head_norms if self.normed_heads else {}),
            "self_attn.o_proj": (hidden, queries),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
        }
        biased = self.biased(config)
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
        for layer in range(config.num_hidden_layers):
            for name, shape in projections.items():
                shapes[f"model.layers.{layer}.{name}.weight"] = shape
                if name.startswith(biased):
                    shapes[f"model.layers.{layer}.{name}.bias"] = shape[:1]
        shapes["model.norm.weight"] = (hidden,)
        if not config.tied:
            shapes["lm_head.weight"] = (config.vocab_size, hidden)
        return shapes


class Llama(Gated):
    """Biases where `attention_bias` and `mlp_bias` say so; heads may have a size of their own."""

    name: ClassVar[str] = "llama"
    free_head_dim: ClassVar[bool] = True

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        if raw.get("num_key_value_heads") is None:  # the first Llamas knew no groups
            raw = {**raw, "num_key_value_heads": raw.get("num_attention_heads")}
        return super().read(raw, where)

    def biased(self, config: Config) -> tuple[str, ...]:
        fields = {"attention_bias": "self_attn.", "mlp_bias": "mlp."}
        return tuple(prefix for field, prefix in fields.items() if config.raw.get(field))


class Qwen2(Gated):
    """Biases on queries, keys and values; a sliding window that is switched on is refused."""

    name: ClassVar[str] = "qwen2"

    def sliding_window(self, raw: Mapping[str, Any], where: str) -> int | None:
        for field in ("use_sliding_window", "use_mrope"):
            if raw.get(field):
                raise ModelFileError(f"{where}: {field} {raw[field]!r} is not supported; known: false")
        if any(kind != "full_attention" for kind in raw.get("layer_types") or ()):
            raise ModelFileError(f"{where}: layer_types is supported only with full_attention in every layer")
        return None

    def biased(self, config: Config) -> tuple[str, ...]:
        return ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


class Qwen3(Qwen2):
    """Normed heads of a size of their own, 128 where none is given; biases on all of attention or on none of it."""

    name: ClassVar[str] = "qwen3"
    free_head_dim: ClassVar[bool] = True
    normed_heads: ClassVar[bool] = True

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        if raw.get("head_dim") is None:
            raw = {**raw, "head_dim": 128}
        return super().read(raw, where)

    def biased(self, config: Config) -> tuple[str, ...]:
        projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
        return projections if config.raw.get("attention_bias") else ()
