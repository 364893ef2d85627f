"""What a source is loaded as, planned before its weights are read: every check is done by then."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch

from codellm.errors import InvalidValueError, ModelFileError, NotEnoughMemoryError
from codellm.model import ModelInfo
from codellm.scheme import is_quantized
from codellm.sources.architecture import Architecture, Config
from codellm.sources.architectures import read_config
from codellm.sources.packed import packed_infos
from codellm.torch.cache import Cache, ring_size
from codellm.torch.decoder import Decoder
from codellm.torch.device import CHUNK, SCORED
from codellm.torch.weights import DTYPES, Weights

if TYPE_CHECKING:
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource, TensorInfo
    from codellm.spec import LoadSpec

DEFAULT_CONTEXT = 4096


@attrs.frozen(kw_only=True)
class Plan:
    """A checkpoint read but for its weights, and what will be made of it."""

    source: ModelSource
    config: Config
    infos: dict[str, TensorInfo] = attrs.field(repr=False)
    """The tensors to read."""
    parameters: int
    """Weights of the model; those that embedding and output share count once."""
    dtype: torch.dtype
    device: torch.device
    batch_size: int
    context_length: int
    chunk: int
    joins: bool
    """Whether the keys of a chunk join those before it ahead of the cache, which then needs no cells for them."""
    layer_devices: tuple[torch.device, ...] = ()
    """Where each layer lies, with its keys and values; empty where all of them lie on `device`, as the rest does."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decoded token reads: of an embedding that is no output too, one row."""
        unread = 0 if self.config.tied else numel(self.infos["model.embed_tokens.weight"])
        return (self.parameters - unread) * self.dtype.itemsize

    @property
    def cell_bytes(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return (
            2
            * self.config.num_hidden_layers
            * self.config.num_key_value_heads
            * self.config.head_dim
            * self.dtype.itemsize
        )

    def cache_bytes(self, context_length: int) -> int:
        """Bytes of the cache for `context_length` tokens of every slot."""
        return (
            self.batch_size * ring_size(self.config, context_length, 1 if self.joins else self.chunk) * self.cell_bytes
        )

    @property
    def name(self) -> str:
        """The type to compute in, as LoadSpec names it."""
        return str(self.dtype).removeprefix("torch.")

    def decoder(self) -> Decoder:
        """Decoder of this plan, with its weights read.

        Raises:
            ModelFileError: a tensor cannot be read, or holds NaN or infinity.
        """
        assert self.source.tensors is not None
        weights = Weights(self.source.tensors, self.infos, dtype=self.dtype, device=self.device)
        return Decoder(self.config, weights, self.context_length).eval()

    def cache(self) -> Cache:
        """Cache for all slots, without cells for a chunk that joins ahead of it."""
        return Cache.allocate(
            self.config,
            slots=self.batch_size,
            context_length=self.context_length,
            chunk=1 if self.joins else self.chunk,
            dtype=self.dtype,
            device=self.layer_devices or self.device,
        )

    def info(
        self, backend: str, weight_bytes: int, scheme: Scheme | None = None, prefix_cache: int | None = None
    ) -> ModelInfo:
        """Facts of the model that `backend` has loaded, of `weight_bytes` a token."""
        return ModelInfo(
            backend=backend,
            architecture=str(self.source.config["model_type"]),
            parameters=self.parameters,
            weight_bytes=weight_bytes,
            context_length=self.context_length,
            dtype=self.name,
            scheme="none" if scheme is None else scheme.name,
            device=self.device.type,
            path=str(self.source.path or ""),
            batch_size=self.batch_size,
            threads=torch.get_num_threads() if self.device.type == "cpu" else None,
            dummy=self.source.dummy,
            prefix_cache=prefix_cache,
        )


def plan(
    spec: LoadSpec,
    source: ModelSource,
    device: torch.device,
    free: int,
    bits: float | None = None,
    *,
    chunk: int | None = None,
    joins: bool = False,
    packed: bool = False,
) -> Plan:
    """Read everything of `source` but its weights, and see that `free` bytes of memory hold what `spec` asks for.

    `bits` is what a weight of a layer's projections takes where they are quantized; the rest is as `unfitted` has it.

    Raises:
        ModelFileError: the configuration, tokenizer or a tensor is missing or not supported.
        InvalidValueError: a field of `spec` that cannot be honoured.
        NotEnoughMemoryError: it does not fit; says what is needed.
    """
    made = unfitted(spec, source, device, chunk=chunk, joins=joins, packed=packed)
    return fitted(made, free, None if packed else bits, asked=spec.context_length is not None)


def unfitted(
    spec: LoadSpec,
    source: ModelSource,
    device: torch.device,
    *,
    chunk: int | None = None,
    joins: bool = False,
    packed: bool = False,
) -> Plan:
    """Read everything of `source` but its weights, whatever memory there is.

    `chunk` is how many tokens of a prompt are computed at once; see `Plan` for `joins`. A checkpoint that is quantized
    already is refused unless it may be `packed`.

    Raises:
        ModelFileError: the configuration, tokenizer or a tensor is missing or not supported.
        InvalidValueError: a field of `spec` that cannot be honoured.
    """
    architecture, config = read_config(source)
    if source.tensors is None or source.tokenizer is None:
        missing = "weights" if source.tensors is None else "tokenizer.json"
        raise ModelFileError(f"{source.path or source.name}: no {missing} to load")
    if is_quantized(source.scheme) and not packed:
        raise ModelFileError(f"{source.path or source.name}: quantized already ({source.scheme}); load the original")
    made = Plan(
        source=source,
        config=config,
        infos=(packed_infos if packed else Architecture.infos)(
            architecture, source.tensors, config, source.path or source.name
        ),
        parameters=sum(map(math.prod, architecture.shapes(config).values())),
        dtype=DTYPES[dtype_of(spec, source, device)],
        device=device,
        batch_size=spec.batch_size,
        context_length=spec.context_length or min(config.context_length, DEFAULT_CONTEXT),
        chunk=chunk or CHUNK[device.type],
        joins=joins,
    )
    if made.context_length > config.context_length and not source.dummy:  # random weights are as bad at any length
        raise InvalidValueError(
            f"{source.name} takes a context_length of at most the {config.context_length} tokens it was trained for, "
            f"not {made.context_length}"
        )
    return made


def dtype_of(spec: LoadSpec, source: ModelSource, device: torch.device) -> str:
    """The type to compute in: as asked, else as stored, but that CPUs lack float16 and so take it only when asked."""
    if spec.dtype != "auto":
        return spec.dtype
    fit = {"bfloat16"} if device.type == "cpu" else {"bfloat16", "float16"}
    return source.dtype if source.dtype in fit else "float32"


def fitted(made: Plan, free: int, bits: float | None, *, asked: bool) -> Plan:
    """The plan, with a shorter context where none was asked for and memory is short.

    Raises:
        NotEnoughMemoryError: it does not fit; says what is needed.
    """
    weights, rest = held_bytes(made, bits), logits_bytes(made) + activation_bytes(made)
    room = free - weights - rest
    if made.cache_bytes(made.context_length) <= room:
        return made
    least = made.context_length if asked else min(made.context_length, 256)
    need = made.cache_bytes(least)
    if need > room:
        raise NotEnoughMemoryError(
            f"{made.source.name} in {made.name} needs {(weights + rest + need) / 1e9:.1f} GB of memory "
            f"({weights / 1e9:.1f} for weights, {need / 1e9:.1f} for {made.batch_size} x {least} tokens of context), "
            f"and {free / 1e9:.1f} are free; take a smaller context_length, batch_size or dtype, or a quantized model"
        )
    return attrs.evolve(made, context_length=room // (made.batch_size * made.cell_bytes) // 256 * 256)


def spare_bytes(made: Plan, free: int, bits: float | None = None) -> int:
    """Bytes that a plan which was `fitted` into so many leaves."""
    needed = (
        held_bytes(made, bits) + logits_bytes(made) + activation_bytes(made) + made.cache_bytes(made.context_length)
    )
    return free - needed


def held_bytes(made: Plan, bits: float | None) -> int:
    """Bytes of all weights; those of a layer's projections take `bits` where they are quantized."""
    return sum(int(numel(info) * held(info, made.dtype, bits)) for info in made.infos.values()) // 8


def logits_bytes(made: Plan) -> int:
    """Bytes of the most rows of logits, and of what they are turned into, that stand together."""
    return 4 * made.config.vocab_size * (made.batch_size + 2 * SCORED[made.device.type])


def activation_bytes(made: Plan) -> int:
    """Bytes of what a layer computes of a chunk before the next one does."""
    return 4 * made.chunk * (made.config.intermediate_size + 8 * made.config.hidden_size)


def held(info: TensorInfo, dtype: torch.dtype, bits: float | None) -> float:
    """Bits that a value of a tensor takes in memory: those of packed weights lie there as they are stored."""
    if info.dtype not in DTYPES:
        stored: torch.dtype = getattr(torch, info.dtype)
        return 8 * stored.itemsize
    if bits is not None and ".layers." in info.name and info.name.endswith(".weight") and len(info.shape) > 1:
        return bits
    return 8 * dtype.itemsize


def numel(info: TensorInfo) -> int:
    """Values of a tensor."""
    return math.prod(info.shape)
