"""What Llama and Qwen2 share: RMS norms without biases, and a feed-forward layer with a SiLU gate."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm_cpu.convert.architecture import ATTENTION_NAMES, Architecture, Config

if TYPE_CHECKING:
    from gguf import GGUFWriter


class Gated(Architecture):
    """Tensor names and shapes; a subclass says which projections have biases."""

    blocks: ClassVar[Mapping[str, str]] = ATTENTION_NAMES | {
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {"hidden_act": ("silu",)}
    epsilon: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)

    @abc.abstractmethod
    def biased(self, config: Config) -> tuple[str, ...]:
        """Prefixes of the projections that have a bias."""

    def shapes(self, config: Config) -> dict[str, tuple[int, ...]]:
        hidden, inner = config.hidden, config.inner
        queries, keys = config.heads * config.head, config.kv_heads * config.head
        projections = {  # name: (out, in), or (out,) of a norm
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        biased = self.biased(config)
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocabulary, hidden)}
        for layer in range(config.layers):
            for name, shape in projections.items():
                shapes[f"model.layers.{layer}.{name}.weight"] = shape
                if name.startswith(biased):
                    shapes[f"model.layers.{layer}.{name}.bias"] = shape[:1]
        shapes["model.norm.weight"] = (hidden,)
        if not config.tied:
            shapes["lm_head.weight"] = (config.vocabulary, hidden)
        return shapes

    def add_norm_epsilon(self, writer: GGUFWriter, epsilon: float) -> None:
        writer.add_layer_norm_rms_eps(epsilon)
