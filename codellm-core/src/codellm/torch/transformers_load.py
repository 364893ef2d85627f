"""Loading with transformers' own models: each weight is read from our source."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs
import transformers

from codellm.errors import InvalidValueError, NotEnoughMemoryError
from codellm.prefix_cache import room
from codellm.sources.safetensors import TYPES
from codellm.tokenizer import HFTokenizer
from codellm.torch.device import clear, device_of, enough_memory, free_memory, gpus
from codellm.torch.load import fitted, spare_bytes, unfitted
from codellm.torch.model import TorchModel
from codellm.torch.spread import spread
from codellm.torch.weights import as_tensor

if TYPE_CHECKING:
    import torch

    from codellm.sources import ModelSource, TensorInfo, Tensors
    from codellm.spec import LoadSpec
    from codellm.torch.load import Plan
    from codellm.torch.quantization import Quantization
    from codellm.torch.transformers_engine import TransformersEngine


class Runtime(Protocol):
    """What loading asks of a backend: `TransformersBackend` says what each member means."""

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]]
    attentions: ClassVar[tuple[str, ...]]

    def limit(self, options: Mapping[str, Any]) -> int | None: ...

    def engine(self, attention: str) -> type[TransformersEngine]: ...


def load_transformers(
    backend: Runtime,
    spec: LoadSpec,
    source: ModelSource,
    options: Mapping[str, Any],
    quantization: Quantization | None,
) -> TorchModel:
    """Load what `backend` runs of `source`, with every check before the weights are read.

    Raises:
        ModelFileError: the model is broken or not supported.
        InvalidValueError: a field of `spec` that this backend cannot honour.
        NotEnoughMemoryError: it does not fit; says what is needed.
    """
    attention = spec.attn_implementation or backend.attentions[0]
    if attention not in backend.attentions:
        known = " or ".join(backend.attentions)
        raise InvalidValueError(f"{backend.name}: attn_implementation is {known}, not {attention}")
    device = device_of(backend.name, spec, backend.devices)
    limit = backend.limit(options)
    clear(device, limit)
    if quantization is not None:
        spec = attrs.evolve(spec, dtype=quantization.dtype(spec.dtype, device))
    with enough_memory(device):
        return _loaded(backend, spec, source, device, limit, options, attention, quantization)


def _loaded(
    backend: Runtime,
    spec: LoadSpec,
    source: ModelSource,
    device: torch.device,
    limit: int | None,
    options: Mapping[str, Any],
    attention: str,
    quantization: Quantization | None,
) -> TorchModel:
    engine, scheme = backend.engine(attention), None if quantization is None else quantization.scheme
    packed = quantization is not None and quantization.stored
    made = unfitted(spec, source, device, chunk=options["chunk"], joins=engine.joins, packed=packed)
    made, kept = _placed(made, limit, quantization, options["prefix_cache"], asked=spec.context_length is not None)
    tokenizer = HFTokenizer.of(source)
    model = open_model(made, quantization, engine.implementation(attention, device, made.dtype))
    return TorchModel(
        made.info(backend.name, weight_bytes(model), scheme, kept),
        tokenizer,
        engine(
            model,
            made.cache(),
            vocab_size=min(tokenizer.vocab_size, made.config.vocab_size),
            context_length=made.context_length,
            chunk=made.chunk,
        ),
    )


def _placed(
    made: Plan, limit: int | None, quantization: Quantization | None, prefix_cache: int | None, *, asked: bool
) -> tuple[Plan, int | None]:
    """The plan on its device, or over all GPUs that are there if that one is too small; each has `limit` bytes.

    What is quantized stays on one: it is there to be small. → The plan, and bytes for the prefix cache, whose option
    has the value `prefix_cache`.
    """
    bits = None if quantization is None or quantization.stored else quantization.scheme.bits
    reserved = (prefix_cache or 0) << 20
    try:
        free = free_memory(made.device, limit) - reserved
        made = fitted(made, free, bits, asked=asked)
        return made, room(prefix_cache, spare_bytes(made, free, bits))
    except NotEnoughMemoryError:
        devices = gpus(made.device)
        if quantization is not None or len(devices) < 2:
            raise
    for device in devices:
        clear(device, limit)
    free_of = {device: free_memory(device, limit) - reserved for device in devices}
    return spread(made, free_of, asked=asked), room(prefix_cache, 0)


def device_map(made: Plan) -> dict[str, str | int]:
    """Where transformers puts each module, by the GPU's number: layers as planned, all else on the plan's device."""
    if not made.layer_devices:
        return {"": str(made.device)}
    ends = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head")
    layers = {f"model.layers.{number}": device.index for number, device in enumerate(made.layer_devices)}
    return {**dict.fromkeys(ends, made.device.index), **layers}


def open_model(made: Plan, quantization: Quantization | None, attention: str) -> Any:
    """The model of `made` as transformers has it.

    Raises:
        ModelFileError: a tensor cannot be read.
    """
    assert made.source.tensors is not None
    tensors = made.source.tensors if quantization is None else quantization.tensors(made.source.tensors)
    config = transformers.AutoConfig.for_model(
        **{key: value for key, value in made.source.config.items() if key != "quantization_config"}
    )
    kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    lock = threading.Lock()
    weights = {name: Stored(tensors, info, made.device, lock) for name, info in made.infos.items()}
    kwargs: dict[str, Any] = {}
    if quantization is not None or made.device.type != "cpu":
        kwargs["device_map"] = device_map(made)
    with quantization.loading() if quantization is not None else contextlib.nullcontext(), no_bars():
        if quantization is not None and quantization.stored:
            config.quantization_config = quantization.config(made.dtype).to_dict()
        elif quantization is not None:
            kwargs["quantization_config"] = quantization.config(made.dtype)
        model = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=made.dtype, attn_implementation=attention, **kwargs
        )
        model = model if quantization is None else quantization.finished(model)
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers from showing progress of its own for the time of the block."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


class Stored:
    """A tensor of a source that is read when transformers takes it, as a slice of a safetensors file is."""

    def __init__(self, tensors: Tensors, info: TensorInfo, device: torch.device, lock: threading.Lock) -> None:
        self._tensors, self._info, self._device, self._lock = tensors, info, device, lock

    def __getitem__(self, part: Any) -> torch.Tensor:
        with self._lock:  # transformers reads with several threads
            return as_tensor(self._tensors, self._info, self._device)[part].clone()

    def get_shape(self) -> list[int]:
        """Extents, as transformers asks a slice of a safetensors file for them."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """The type by safetensors' name."""
        return next(name for name, (ours, _) in TYPES.items() if ours == self._info.dtype)


def weight_bytes(model: Any) -> int:
    """Bytes of weights that one decoded token reads, with the scales of quantized ones.

    Of an embedding that is no output too that is one row.
    """
    total = 0
    for weight in model.parameters():
        total += weight.nbytes + sum(part.nbytes for part in scales(weight))
    for module in model.modules():
        if hasattr(module, "list_buffers"):  # of gptqmodel's kernels, which have no parameters
            total += sum(part.nbytes for part in module.list_buffers())
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return total - (0 if embedding is output else embedding.nbytes)


def scales(weight: Any) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside a quantized weight, before its first use; nothing for a plain one."""
    state = getattr(weight, "quant_state", None)
    nested = getattr(state, "state2", None)
    parts = [getattr(weight, "SCB", None), getattr(state, "absmax", None), getattr(nested, "absmax", None)]
    return [part for part in parts if part is not None]
