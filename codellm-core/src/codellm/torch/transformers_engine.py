"""The engine on transformers' own models: the plain reference, with bitsandbytes' quantization where asked.

Its forward pass is transformers', untouched; the loop around it is ours. Keys and values lie in our cache, so that each
place counts its positions from zero and no prompt is padded, whatever runs beside it.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.cache_utils import CacheLayerMixin

from codellm.torch.cache import Cache
from codellm.torch.engine import Engine
from codellm.torch.weights import as_tensor

if TYPE_CHECKING:
    from codellm.sources import TensorInfo, Tensors
    from codellm.torch.load import Plan

_SPAN = 64
"""Cells by which what a step looks at grows."""


class TransformersEngine(Engine):
    """Computes with `model`, a causal language model of transformers."""

    def __init__(self, model: Any, cache: Cache, *, vocabulary: int, context: int, chunk: int) -> None:
        self.model = model
        self.cache = cache
        self.places = len(cache.keys[0])
        self.context = context
        self.chunk = chunk
        self.vocabulary = vocabulary
        self.device = cache.keys[0].device
        taken = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in taken else "past_key_values"  # its name before transformers 5.20

    def prefill(self, place: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._chunk(place, ids, start, keep=1)[-1]

    def every(self, place: int, ids: Seq[int], start: int) -> torch.Tensor:
        return self._chunk(place, ids, start, keep=0)

    def _chunk(self, place: int, ids: Seq[int], start: int, keep: int) -> torch.Tensor:
        positions = torch.arange(start, start + len(ids), device=self.device)[None]  # [1, T]
        view = self.cache.view(place, place + 1, self.cache.span(start + len(ids), _SPAN))
        return self._forward(torch.tensor([ids], device=self.device), positions, view, keep)[0]

    def decode(self, ids: Seq[int], positions: Seq[int]) -> torch.Tensor:
        view = self.cache.view(0, self.places, self.cache.span(max(positions) + 1, _SPAN))
        tokens, places = torch.tensor([ids, positions], device=self.device)
        return self._forward(tokens[:, None], places[:, None], view, keep=1)[:, 0]

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor, view: Cache, keep: int) -> torch.Tensor:
        """`tokens` and `positions` [B, T] → logits of the last `keep` tokens, with 0 of all: float32 [B, keep, V]."""
        layers = [Cells(view, layer, view.slots(positions)) for layer in range(len(view.keys))]
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=view.mask(positions, view.keys[0].dtype),
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_argument: transformers.Cache(layers=layers)},
        ).logits
        return logits[..., : self.vocabulary].float()

    def copy(self, source: int, target: int, length: int) -> None:
        self.cache.copy(source, target, length)

    @property
    def kept(self) -> int:
        return self.cache.ring


class Cells(CacheLayerMixin):  # type: ignore[misc]
    """One layer of our cache, as transformers' attention writes and reads it."""

    is_sliding = False

    def __init__(self, view: Cache, layer: int, slots: torch.Tensor) -> None:
        super().__init__()
        self._keys, self._values = view.keys[layer], view.values[layer]  # [B, R, KV, D]
        self._slots = slots  # [B, T]
        self.is_initialized = True

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [B, KV, T, D] → all cells [B, KV, R, D]."""
        rows = torch.arange(len(self._slots), device=self._slots.device)[:, None]
        self._keys[rows, self._slots] = keys.transpose(1, 2).to(self._keys.dtype)
        self._values[rows, self._slots] = values.transpose(1, 2).to(self._values.dtype)
        return self._keys.transpose(1, 2).to(keys.dtype), self._values.transpose(1, 2).to(values.dtype)

    def lazy_initialization(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Nothing: the cells are there."""

    def get_seq_length(self) -> int:
        """Not asked for, since every call brings its positions and its mask."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Cells, and where they begin."""
        return self._keys.shape[1], 0

    def get_max_length(self) -> int:
        """Cells."""
        return self._keys.shape[1]


def open_model(made: Plan, scheme: str | None, attention: str) -> Any:
    """The model of `made` as transformers has it: each weight read from our source, and quantized as `scheme` says.

    Raises:
        ModelFileError: a tensor cannot be read.
    """
    assert made.source.tensors is not None
    config = transformers.AutoConfig.for_model(**made.source.config)
    kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    lock = threading.Lock()
    weights = {name: Stored(made.source.tensors, info, lock) for name, info in made.infos.items()}
    quantization = quantization_of(scheme, made.dtype)
    where = {} if quantization is None and made.device.type == "cpu" else {"device_map": {"": str(made.device)}}
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=made.dtype,
            attn_implementation=attention,
            quantization_config=quantization,
            **where,
        )
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return model.eval().requires_grad_(False)


def quantization_of(scheme: str | None, dtype: torch.dtype) -> Any:
    """What `scheme` is to bitsandbytes, with its own defaults; None without a scheme."""
    if scheme is None:
        return None
    # it warns at every product that it casts to float16, and once that faster kernels of the hub are not installed
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if scheme == "bnb-int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=scheme.removeprefix("bnb-"), bnb_4bit_compute_dtype=dtype
    )


class Stored:
    """A tensor of a source that is read when transformers takes it, as a slice of a safetensors file is."""

    def __init__(self, tensors: Tensors, info: TensorInfo, lock: threading.Lock) -> None:
        self._tensors, self._info, self._lock = tensors, info, lock

    def __getitem__(self, part: Any) -> torch.Tensor:
        with self._lock:  # transformers reads with several threads
            return as_tensor(self._tensors, self._info)[part].clone()

    def get_shape(self) -> list[int]:
        """Extents."""
        return list(self._info.shape)


def weight_bytes(model: Any) -> int:
    """Bytes of weights that one decoded token reads, with the scales of quantized ones.

    Of an embedding that is no output too that is one row.
    """
    total = 0
    for weight in model.parameters():
        total += weight.nbytes + sum(part.nbytes for part in scales(weight))
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return total - (0 if embedding is output else embedding.nbytes)


def scales(weight: Any) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside a quantized weight, before its first use; nothing for a plain one."""
    state = getattr(weight, "quant_state", None)
    nested = getattr(state, "state2", None)
    parts = [getattr(weight, "SCB", None), getattr(state, "absmax", None), getattr(nested, "absmax", None)]
    return [part for part in parts if part is not None]
