"""The tensors of a checkpoint as transformers takes them, whoever saved them.

A checkpoint may hold the tensors of the base model alone, without its `model.` in front; a model that was saved from
inside a wrapper has the wrapper's name on the way to each tensor; of the embedding and the output of a tied model,
which are one, either may be the one that is stored; and beside the weights there may be tensors that no text depends
on. Source: transformers, modeling_utils.py, `from_pretrained`, which puts the prefix before names, ties whichever of
the two is there (neither, where both are and differ), and passes over what the model has no place for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from codellm.errors import ModelFileError
from codellm.sources.regular import quoted, shown
from codellm.sources.source import TensorInfo, Tensors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ROWS = 1024
"""Compared at once."""

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"

WRAPPERS = frozenset(
    {
        *("module", "_orig_mod", "_forward_module", "pretrained_model"),
        *("_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    }
)
"""What DataParallel and DeepSpeed, torch.compile, Lightning, TRL, FSDP and activation checkpointing put into names."""

_BASE = frozenset({"embed_tokens", "layers", "norm", "rotary_emb"})
"""What a base model consists of, and stands behind `model.` in the whole one."""

_BUFFER = re.compile(
    r"model\..*\b(original_inv_freq|inv_freq|cos_cached|sin_cached|embed_positions|position_ids|causal_mask|masked_bias)"
)
"""What old checkpoints store though it follows from the configuration: tables of the rope, positions, masks."""

_MASK = re.compile(r"model\.layers\.\d+\.(self_)?attn\.bias")
"""The mask of a layer's attention, where it is no vector and so no bias."""

_HEAD = re.compile(r"(?!lm_head\.)(\w+_heads?|score|classifier|qa_outputs|critic)\..+")
"""Another head beside the one that writes text, as training by reward or for another task leaves it."""


class NamedTensors(Tensors):
    """The tensors of `stored` that matter, by transformers' names; of a `tied` model the embedding is among them.

    `where` names the checkpoint in messages.

    Raises:
        ModelFileError: two tensors would have one name.
    """

    def __init__(self, stored: Tensors, where: object, *, tied: bool) -> None:
        self._stored = stored
        self._names: dict[str, str] = {}
        infos: dict[str, TensorInfo] = {}
        for info in stored:
            name = usual_name(info.name)
            if needless(name, info.shape):
                continue
            if name in infos:
                twins = f"{quoted(self._names[name])} and {quoted(info.name)}"
                raise ModelFileError(f"{shown(str(where))}: tensors {twins} are both {quoted(name)}")
            self._names[name] = info.name
            infos[name] = attrs.evolve(info, name=name)
        if tied and EMBEDDING not in infos and OUTPUT in infos:
            self._names[EMBEDDING] = self._names.pop(OUTPUT)
            infos[EMBEDDING] = attrs.evolve(infos.pop(OUTPUT), name=EMBEDDING)
        self._infos = tuple(infos.values())

    def infos(self) -> tuple[TensorInfo, ...]:
        return self._infos

    def read(self, name: str) -> npt.NDArray[np.generic]:
        return self._stored.read(self._names.get(name, name))


def usual_name(stored: str) -> str:
    """The name that transformers gives the tensor which a file names `stored`."""
    parts = [part for part in stored.split(".") if part not in WRAPPERS]
    return ".".join(["model", *parts] if parts and parts[0] in _BASE else parts)


def needless(name: str, shape: tuple[int, ...]) -> bool:
    """Whether no text depends on a tensor, by its usual name."""
    if _MASK.fullmatch(name):
        return len(shape) > 1
    return any(form.fullmatch(name) for form in (_BUFFER, _HEAD))


def as_stored(tensors: Tensors, config: Mapping[str, Any], *, tied: bool) -> Mapping[str, Any]:
    """Configuration as the weights are: `config`, but not tied where the model has an output of its own.

    Raises:
        ModelFileError: a tensor cannot be read.
    """
    types = {info.name: (info.dtype, info.shape) for info in tensors}
    both = tied and EMBEDDING in types and OUTPUT in types
    if not both or (types[EMBEDDING] == types[OUTPUT] and _equal(tensors)):
        return config
    return {**config, "tie_word_embeddings": False}


def _equal(tensors: Tensors) -> bool:
    """Whether embedding and output are the same, bit for bit."""
    embedding, output = tensors.read(EMBEDDING), tensors.read(OUTPUT)
    parts = (slice(row, row + _ROWS) for row in range(0, len(embedding), _ROWS))
    return all(embedding[part].tobytes() == output[part].tobytes() for part in parts)
