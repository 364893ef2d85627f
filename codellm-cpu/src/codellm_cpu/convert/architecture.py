"""What an architecture is in GGUF: the parts that all of them share, and the shape of a table.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md) for the keys, `gguf.constants` for the tensor names,
llama.cpp's src/models for what its graphs compute. What they would compute otherwise than transformers is refused.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from codellm.errors import ModelFileError
from codellm_cpu.convert.rope import Rope, read_rope

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

DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""A buffer that old checkpoints store though it follows from the configuration."""


@attrs.frozen(kw_only=True)
class Config:
    """A config.json, read and checked. `raw` is the file's object, for what one architecture alone has."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    """Values of one head."""
    context: int
    vocabulary: int
    epsilon: float
    rope: Rope
    tied: bool
    raw: Mapping[str, Any] = attrs.field(repr=False)


FIELDS = {
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}


class Architecture(abc.ABC):
    """The table of one architecture: `name` is config.json's `model_type` and GGUF's architecture alike."""

    name: ClassVar[str]
    blocks: ClassVar[Mapping[str, str]]
    """GGUF's name of each module inside a layer."""
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]]
    """Fields that the compute graph takes for granted, with what they may say; the first is transformers' default."""
    epsilon: ClassVar[tuple[str, float]]
    """The field of the norms' epsilon, and transformers' default."""
    tied: ClassVar[bool] = False
    """transformers' default of `tie_word_embeddings`."""
    ropes: ClassVar[tuple[str, ...]] = ("default", "linear")
    free_head: ClassVar[bool] = False
    """Whether `head_dim` may differ from the hidden size over the heads."""

    @abc.abstractmethod
    def shapes(self, config: Config) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor that the checkpoint must hold, in the order of the forward pass."""

    @abc.abstractmethod
    def add_norm_epsilon(self, writer: GGUFWriter, epsilon: float) -> None:
        """Write the epsilon under the key of the kind of norm."""

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        """Read a config.json; `where` names it in messages.

        Raises:
            ModelFileError: a field is missing or says what GGUF's form of this architecture cannot express.
        """
        sizes = {ours: _size(raw, field, where) for ours, field in FIELDS.items()}
        hidden, heads, kv_heads = sizes["hidden"], sizes["heads"], sizes["kv_heads"]
        if hidden % heads or heads % kv_heads:
            raise ModelFileError(f"{where}: {hidden} hidden, {heads} heads, {kv_heads} key-value heads do not divide")
        head = hidden // heads if raw.get("head_dim") is None else _size(raw, "head_dim", where)
        if head != hidden // heads and not self.free_head:
            raise ModelFileError(f"{where}: head_dim {head} is not hidden_size / num_attention_heads")
        if head % 2:
            raise ModelFileError(f"{where}: heads of {head} values cannot be rotated in pairs")
        if sizes["layers"] > MAX_BLOCKS:
            raise ModelFileError(f"{where}: {sizes['layers']} layers, more than llama.cpp's {MAX_BLOCKS}")
        for field, known in self.fixed.items():
            if raw.get(field, known[0]) not in known:
                names = ", ".join(map(str, known))
                raise ModelFileError(f"{where}: {field} {raw[field]!r} has no GGUF form; known: {names}")
        field, default = self.epsilon
        epsilon = raw.get(field) if raw.get(field) is not None else default
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
            raise ModelFileError(f"{where}: {field} is {epsilon!r}, not a positive number below 1")
        return Config(
            **sizes,
            head=head,
            epsilon=float(epsilon),
            rope=read_rope(raw, self.ropes, where),
            tied=bool(raw.get("tie_word_embeddings", self.tied)),
            raw=raw,
        )

    def gguf_name(self, name: str) -> str:
        """A tensor's name in GGUF; `name` is one of `shapes`."""
        stem, _, part = name.rpartition(".")
        if stem in TOP_NAMES:
            return f"{TOP_NAMES[stem]}.{part}"
        _, _, layer, inner = stem.split(".", 3)
        return f"blk.{layer}.{self.blocks[inner]}.{part}"

    def ignorable(self, name: str, config: Config) -> bool:
        """Whether a tensor outside `shapes` adds nothing: transformers ignores a tied model's own output too."""
        return DERIVED.fullmatch(name) is not None or (config.tied and name == "lm_head.weight")

    def constants(self, config: Config) -> dict[str, npt.NDArray[np.float32]]:
        """GGUF name → values of tensors that llama.cpp wants and the checkpoint does not hold."""
        return {}

    def turned(self, name: str, config: Config) -> int | None:
        """Heads of a tensor whose rows have to be put in the order of llama.cpp's rope; None: written as it is."""
        return None

    def add_keys(self, writer: GGUFWriter, config: Config) -> None:
        """Write the keys that llama.cpp needs to build the model."""
        from gguf import RopeScalingType

        writer.add_context_length(config.context)
        writer.add_embedding_length(config.hidden)
        writer.add_block_count(config.layers)
        writer.add_feed_forward_length(config.inner)
        writer.add_head_count(config.heads)
        writer.add_head_count_kv(config.kv_heads)
        if config.head != config.hidden // config.heads:
            writer.add_key_length(config.head)
            writer.add_value_length(config.head)
        self.add_norm_epsilon(writer, config.epsilon)
        writer.add_rope_dimension_count(config.head)
        writer.add_rope_freq_base(config.rope.theta)
        if config.rope.kind == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(config.rope.factor)
        writer.add_vocab_size(config.vocabulary)


def _size(raw: Mapping[str, Any], field: str, where: str) -> int:
    value = raw.get(field)
    if type(value) is not int or not 0 < value < 2**31:
        raise ModelFileError(f"{where}: {field} is {value!r}, not a positive whole number")
    return value
