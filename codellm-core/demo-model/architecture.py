"""The shape of codellm-demo: StarCoder2's architecture, small enough to ship inside a wheel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Starcoder2Config, Starcoder2ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

CONTEXT = 2048  # tokens
LIMIT = 6_000_000  # parameters, so 12 MB in bfloat16


def shape(vocabulary: int, hidden: int = 256, layers: int = 7) -> Starcoder2Config:
    """The configuration of the model; widths are multiples of 256, as K-quants and GPTQ groups want them."""
    return Starcoder2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,  # two query heads share one: grouped, as in the larger StarCoder2 models
        hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        sliding_window=None,
        norm_epsilon=1e-5,
        use_bias=True,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.02,
        attention_dropout=0.0,
        residual_dropout=0.0,
        embedding_dropout=0.0,
    )


def _causal(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Causal attention over full rows without padding: no mask is built, so the flash kernel is always taken.

    `query` is [B, heads, S, 64], `key` and `value` [B, key-value heads, S, 64]; returns [B, S, heads, 64].
    """
    out = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2), None


def create(config: Starcoder2Config, device: torch.device) -> Starcoder2ForCausalLM:
    """A freshly initialized float32 model for training on rows without padding.

    Raises ValueError where the shape has more parameters than may be bundled.
    """
    ALL_ATTENTION_FUNCTIONS.register("causal_rows", _causal)
    config._attn_implementation = "causal_rows"
    model: Starcoder2ForCausalLM = Starcoder2ForCausalLM(config)  # type: ignore[no-untyped-call]
    count = model.num_parameters()
    if count > LIMIT:
        raise ValueError(f"{count} parameters are more than the {LIMIT} that may be bundled: take a smaller shape")
    nn.Module.to(model, device)  # the method that transformers wraps has lost its types
    return model
