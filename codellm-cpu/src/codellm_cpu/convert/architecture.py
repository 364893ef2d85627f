"""What an architecture is in GGUF: the parts that all of them share, and the shape of a table.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md) for the keys, `gguf.constants` for the tensor names,
llama.cpp's src/models for what its graphs compute. What they would compute otherwise than transformers is refused.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm.errors import ModelFileError
from codellm.sources.architecture import Architecture, Config
from codellm.sources.rope import Rope, yarn_mscale

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from gguf import GGUFWriter

MAX_BLOCKS = 512
"""llama.cpp's LLAMA_MAX_LAYERS: it ends the process above."""

TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}

ATTENTION_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
}


class GgufArchitecture(Architecture):
    """The form of one architecture: its `name` is GGUF's too."""

    blocks: ClassVar[Mapping[str, str]]
    """GGUF's name of each module inside a layer."""
    ropes: ClassVar[tuple[str, ...]] = ("default", "linear", "yarn")

    @abc.abstractmethod
    def add_norm_epsilon(self, writer: GGUFWriter, epsilon: float) -> None:
        """Write the epsilon under the key of the kind of norm."""

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        config = super().read(raw, where)
        if config.num_hidden_layers > MAX_BLOCKS:
            raise ModelFileError(f"{where}: {config.num_hidden_layers} layers, more than llama.cpp's {MAX_BLOCKS}")
        if config.rope.rope_type == "yarn":
            check_yarn(config.rope, where)
        return config

    def gguf_name(self, name: str) -> str:
        """A tensor's name in GGUF; `name` is one of `shapes`."""
        stem, _, part = name.rpartition(".")
        if stem in TOP_NAMES:
            return f"{TOP_NAMES[stem]}.{part}"
        _, _, layer, inner = stem.split(".", 3)
        return f"blk.{layer}.{self.blocks[inner]}.{part}"

    def constants(self, config: Config) -> dict[str, npt.NDArray[np.float32]]:
        """GGUF name → values of tensors that llama.cpp wants and the checkpoint does not hold."""
        return {}

    def permuted_heads(self, name: str, config: Config) -> int | None:
        """Heads of a tensor whose rows `permute` puts in the order of llama.cpp's rope; None: written as it is."""
        return None

    def add_keys(self, writer: GGUFWriter, config: Config) -> None:
        """Write the keys that llama.cpp needs to build the model."""
        writer.add_context_length(config.context_length)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        if config.head_dim != config.hidden_size // config.num_attention_heads:
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        self.add_norm_epsilon(writer, config.epsilon)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope.theta)
        add_rope_scaling(writer, config.rope)
        writer.add_vocab_size(config.vocab_size)


def check_yarn(rope: Rope, where: str) -> None:
    """Refuse what llama.cpp computes otherwise: of these architectures it reads no key of the betas.

    Raises:
        ModelFileError: names the field.
    """
    computed = {"beta_fast": (rope.beta_fast, 32.0), "beta_slow": (rope.beta_slow, 1.0)}
    computed |= {"truncate": (rope.truncate, True)}
    length = rope.original_context_length
    computed |= {"original_max_position_embeddings": (length, round(length))}
    for field, (value, known) in computed.items():
        if value != known:
            raise ModelFileError(
                f"{where}: yarn with {field} {value!r} cannot be converted to GGUF, llama.cpp computes with {known!r}; "
                "use a torch backend"
            )


def add_rope_scaling(writer: GGUFWriter, rope: Rope) -> None:
    """Write the keys of "linear" and "yarn"; of the latter llama.cpp multiplies by its own `yarn_mscale` unasked."""
    from gguf import RopeScalingType

    if rope.rope_type == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope.factor)
    elif rope.rope_type == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope.factor)
        writer.add_rope_scaling_orig_ctx_len(int(rope.original_context_length))
        writer.add_rope_scaling_attn_factors(rope.attention_factor / yarn_mscale(rope.factor))
