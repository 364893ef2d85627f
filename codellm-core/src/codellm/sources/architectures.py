"""The architectures that codellm computes, by config.json's `model_type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from codellm.errors import ModelFileError
from codellm.sources.architecture import Architecture, Config
from codellm.sources.gated import Llama, Qwen2, Qwen3
from codellm.sources.naming import NamedTensors, as_stored
from codellm.sources.starcoder2 import Starcoder2

if TYPE_CHECKING:
    from codellm.sources.source import ModelSource, Tensors

ARCHITECTURES: dict[str, Architecture] = {each.name: each for each in (Starcoder2(), Llama(), Qwen2(), Qwen3())}


def as_usual(tensors: Tensors, config: Mapping[str, Any], where: object) -> tuple[Tensors, Mapping[str, Any]]:
    """The tensors and the config.json of `where` as transformers takes them; of other architectures, as they are.

    Raises:
        ModelFileError: two tensors would have one name, or one cannot be read.
    """
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    if architecture is None:
        return tensors, config
    tied = bool(config.get("tie_word_embeddings", architecture.tied))
    named = NamedTensors(tensors, where, tied=tied)
    return named, as_stored(named, config, tied=tied)


def read_config(source: ModelSource) -> tuple[Architecture, Config]:
    """The architecture of `source`, and its configuration.

    Raises:
        ModelFileError: the architecture is another one, or the configuration says what is not supported.
    """
    where = str(source.path / "config.json") if source.path is not None else f"configuration of {source.name}"
    kind = source.config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ModelFileError(f"{where}: architecture {kind!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind], ARCHITECTURES[kind].read(source.config, where)
