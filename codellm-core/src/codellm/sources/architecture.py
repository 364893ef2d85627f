"""What a checkpoint's config.json says, and which tensors belong to it: the architectures that codellm itself computes.

Names, shapes and defaults are those of transformers, models/*/modeling_*.py and configuration_*.py. What nothing here
computes is refused by name.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from codellm.errors import ModelFileError
from codellm.sources.naming import OUTPUT, needless
from codellm.sources.rope import Rope, read_rope
from codellm.sources.source import STORED

if TYPE_CHECKING:
    from codellm.sources.source import TensorInfo, Tensors


@attrs.frozen(kw_only=True)
class Config:
    """A config.json, read and checked, by its own names. `raw` is its object, for what one architecture alone has."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    """Values of one head."""
    context_length: int
    """`max_position_embeddings`, or more where the rope is scaled further."""
    vocab_size: int
    epsilon: float
    rope: Rope
    sliding_window: int | None
    """Tokens that a token attends to, itself among them; None for all."""
    tied: bool
    raw: Mapping[str, Any] = attrs.field(repr=False)


SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "vocab_size",
)
"""Fields of every architecture that are positive whole numbers."""


class Architecture(abc.ABC):
    """What the configurations of one architecture say, and its tensors; `name` is config.json's `model_type`."""

    name: ClassVar[str]
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]]
    """Fields that the computation takes for granted, with what they may say; the first is transformers' default."""
    epsilon: ClassVar[tuple[str, float]]
    """The field of the norms' epsilon, and transformers' default."""
    tied: ClassVar[bool] = False
    """transformers' default of `tie_word_embeddings`."""
    ropes: ClassVar[tuple[str, ...]] = ("default", "linear", "llama3", "yarn", "dynamic")
    free_head_dim: ClassVar[bool] = False
    """Whether `head_dim` may differ from the hidden size over the heads."""

    @abc.abstractmethod
    def shapes(self, config: Config) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor that the checkpoint must hold, in the order of the forward pass."""

    def sliding_window(self, raw: Mapping[str, Any], where: str) -> int | None:
        """The sliding window of every layer, None where there is none.

        Raises:
            ModelFileError: it is no window, or of a kind that is not supported.
        """
        return None

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        """Read a config.json; `where` names it in messages.

        Raises:
            ModelFileError: a field is missing or says what is not supported.
        """
        sizes = {field: size(raw, field, where) for field in SIZES}
        hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
        kv_heads, positions = sizes["num_key_value_heads"], sizes.pop("max_position_embeddings")
        if hidden % heads or heads % kv_heads:
            raise ModelFileError(f"{where}: {hidden} hidden, {heads} heads, {kv_heads} key-value heads do not divide")
        head_dim = hidden // heads if raw.get("head_dim") is None else size(raw, "head_dim", where)
        if head_dim != hidden // heads and not self.free_head_dim:
            raise ModelFileError(f"{where}: head_dim {head_dim} is not hidden_size / num_attention_heads")
        if head_dim % 2:
            raise ModelFileError(f"{where}: heads of {head_dim} values cannot be rotated in pairs")
        for field, known in self.fixed.items():
            if raw.get(field, known[0]) not in known:
                names = ", ".join(map(str, known))
                raise ModelFileError(f"{where}: {field} {raw[field]!r} is not supported; known: {names}")
        field, default = self.epsilon
        epsilon = raw.get(field) if raw.get(field) is not None else default
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
            raise ModelFileError(f"{where}: {field} is {epsilon!r}, not a positive number below 1")
        rope = read_rope(raw, self.ropes, where)
        return Config(
            **sizes,
            context_length=max(positions, rope.reach),
            head_dim=head_dim,
            epsilon=float(epsilon),
            rope=rope,
            sliding_window=self.sliding_window(raw, where),
            tied=bool(raw.get("tie_word_embeddings", self.tied)),
            raw=raw,
        )

    def infos(self, tensors: Tensors, config: Config, where: object) -> dict[str, TensorInfo]:
        """The tensors that the computation needs, in the order of `shapes`, as `where` stores them.

        Raises:
            ModelFileError: tensors are missing, unknown, of another shape than the configuration says, or not floating.
        """
        expected = self.shapes(config)
        found = {info.name: info for info in tensors}
        missing = [name for name in expected if name not in found]
        if missing:
            raise ModelFileError(f"{where}: {listed(missing)} missing; fetch the checkpoint again")
        extra = [name for name, info in found.items() if name not in expected and not self.ignorable(info, config)]
        if extra:
            raise ModelFileError(f"{where}: {listed(extra)} not known in {self.name}")
        for name, shape in expected.items():
            info = found[name]
            if info.shape != shape:
                raise ModelFileError(
                    f"{where}: tensor {name!r} has shape {list(info.shape)}, config.json makes it {list(shape)}"
                )
            if info.dtype not in STORED:
                raise ModelFileError(
                    f"{where}: tensor {name!r} is {info.dtype}; supported: {', '.join(STORED)} (a checkpoint that is "
                    "already quantized is not)"
                )
        return {name: found[name] for name in expected}

    def ignorable(self, info: TensorInfo, config: Config) -> bool:
        """Whether a tensor outside `shapes` adds nothing, as a tied model's own output does."""
        return needless(info.name, info.shape) or (config.tied and info.name == OUTPUT)


def size(raw: Mapping[str, Any], field: str, where: str) -> int:
    """A field that is a positive whole number.

    Raises:
        ModelFileError: it is not.
    """
    value = raw.get(field)
    if type(value) is not int or not 0 < value < 2**31:
        raise ModelFileError(f"{where}: {field} is {value!r}, not a positive whole number")
    return value


def listed(names: list[str]) -> str:
    """Names in words, three at most: `tensors 'a', 'b', 'c' and 7 more`."""
    shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"tensor{'s' if len(names) > 1 else ''} {shown}"
