"""Where a model's weights come from: what a model string resolves to."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from codellm.scheme import PRECISIONS
from codellm.sources.special_tokens import ends
from codellm.system.cache import content_digest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STORED = tuple(PRECISIONS)
"""Types that weights are stored in; another one means that the checkpoint is quantized already."""


@attrs.frozen
class TensorInfo:
    """Name, shape and stored type ("float32", "float16", "bfloat16") of a tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Tensors(abc.ABC):
    """The weights of a source, read one at a time: a 7B never stands in memory whole."""

    @abc.abstractmethod
    def infos(self) -> Iterable[TensorInfo]:
        """List every tensor, without its data."""

    @abc.abstractmethod
    def read(self, name: str) -> npt.NDArray[np.generic]:
        """The tensor's data: float32 or float16 as such, bfloat16 as uint16 bit patterns, in the tensor's shape.

        Raises:
            ModelFileError: the file is cut short or not as its header says.
        """

    def __iter__(self) -> Iterator[TensorInfo]:
        return iter(self.infos())


@attrs.frozen(kw_only=True)
class ModelSource:
    """A model resolved: format, files, configuration, revision, licence.

    `format` is "safetensors", "gguf", "folder" (a directory that is no model of the hub's kind, with all its visible
    files) or the suffix of a file. `path` is the directory or the file; None for dummy weights.
    """

    name: str
    """The model string without its scheme, as tables show it."""
    format: str
    path: Path | None = None
    files: tuple[Path, ...] = ()
    config: Mapping[str, Any] = attrs.field(factory=dict)
    """config.json of safetensors; else empty: the backend reads what it needs."""
    tokenizer: Path | None = None
    """tokenizer.json; None for gguf, which holds its own."""
    tokenizer_config: Mapping[str, Any] = attrs.field(factory=dict)
    """tokenizer_config.json, and of special_tokens_map.json what it does not say."""
    special_tokens: Mapping[str, Any] = attrs.field(factory=dict)
    """special_tokens_map.json."""
    generation_config: Mapping[str, Any] = attrs.field(factory=dict)
    chat_template: str | None = attrs.field(default=None, repr=False)
    """How the model writes a conversation, in jinja's language; None where no file says, and for gguf."""
    revision: str | None = None
    licence: str | None = None
    scheme: str | None = None
    """The file scheme that the files are already in; None for original weights."""
    dummy: bool = False
    tensors: Tensors | None = attrs.field(default=None, repr=False)
    """The weights of a safetensors or dummy source."""
    _digest: str | None = None

    @property
    def digest(self) -> str:
        """Identifies the content (hex), so that artifacts are keyed by it; read off `files` where not given."""
        return self._digest or content_digest(self.files)

    @property
    def dtype(self) -> str:
        """The narrowest type that holds every matrix as it is stored; the tensors decide, whatever config.json says.

        Vectors do not count (nobody computes with them in bulk), nor do matrices of one row, which are heads that no
        language model computes with. Where the weights are quantized or not known, it is what config.json says
        ("dtype", once "torch_dtype").
        """
        infos = () if self.tensors is None or self.scheme is not None else self.tensors.infos()
        stored = {info.dtype for info in infos if len(info.shape) == 2 and min(info.shape) > 1}.intersection(STORED)
        if stored:
            return stored.pop() if len(stored) == 1 else "float32"  # neither half type holds the other
        return str(self.config.get("dtype") or self.config.get("torch_dtype") or "float32")

    @property
    def ends(self) -> tuple[str | int, ...]:
        """The tokens that its files end texts with, by string or id: what the tokenizer's say stands first."""
        return ends(self.tokenizer_config, self.special_tokens, self.config, self.generation_config)
