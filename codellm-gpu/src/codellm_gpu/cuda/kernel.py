"""The step kernel of a model's shape on a GPU: whether it can be made, compiling it once, and launching it."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from codellm.errors import BackendUnavailableError
from codellm.system.cache import cache_path
from codellm_gpu.cuda import tape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codellm.sources.architecture import Config
    from codellm.torch.cache import Cache
    from codellm.torch.decoder import Decoder

CAPABILITY = (8, 0)
"""Ampere: the first with copies into shared memory that nobody waits for, and products of bfloat16."""
BULK_CAPABILITY = (9, 0)
"""Hopper: the first whose copy engine takes a page by one instruction."""
WARPS = 11
"""Consumer warps of a block; the producer is one more."""
FLIGHT_BYTES = 96 << 10
"""Bytes of a block's pages that are under way at once."""
MOST_SPLITS = 64
"""Blocks that may share the cells of one key-value head."""
COLUMNS = 128
"""What every matrix's columns must be a multiple of: a chunk of 4 bits."""
HEADS_PER_GROUP = 16
"""Query heads of a key-value head: the rows of one product of the tensor cores."""


@attrs.frozen(kw_only=True)
class Gpu:
    """What of a GPU decides how the kernel is made."""

    capability: tuple[int, int]
    blocks: int
    """Its multiprocessors: one block on each."""
    shared_bytes: int
    """The most shared memory of a block."""

    @classmethod
    def of(cls, device: torch.device) -> Gpu:
        """The GPU `device`."""
        found = torch.cuda.get_device_properties(device)
        return cls(
            capability=(found.major, found.minor),
            blocks=found.multi_processor_count,
            shared_bytes=found.shared_memory_per_block_optin,
        )


@attrs.frozen(kw_only=True)
class Shape:
    """What the source is compiled for: its macros."""

    config: Config = attrs.field(repr=False)
    layer_bits: int
    head_bits: int
    fp16: bool
    zeros: bool
    scale_fp16: bool
    gated: bool
    rms: bool
    qk_norm: bool
    biases: tuple[bool, bool, bool, bool, bool]
    """Of qkv, o_proj, up, down and lm_head."""

    @classmethod
    def of(cls, config: Config, decoder: Decoder) -> Shape:
        """The shape of `decoder`, which is of `config`."""
        layer = next(iter(tape.layers(decoder)))
        attention, feed_forward = layer.attention, layer.feed_forward
        modules = (attention.qkv, attention.o_proj, feed_forward.up, feed_forward.down, decoder.lm_head)
        bits = tape.bits_of(attention.qkv)
        scales = getattr(attention.qkv, "scales", None)
        return cls(
            config=config,
            layer_bits=bits,
            head_bits=tape.bits_of(decoder.lm_head),
            fp16=decoder.embedding.weight.dtype == torch.float16,
            zeros=bits == 4 and any(module.zeros is not None for module in modules[:4]),
            scale_fp16=scales is not None and scales.dtype == torch.float16,
            gated=feed_forward.gated,
            rms=getattr(layer.attention_norm, "bias", None) is None,
            qk_norm=getattr(attention, "q_norm", None) is not None,
            biases=tuple(module.bias is not None for module in modules),  # type: ignore[arg-type]
        )

    @property
    def columns(self) -> tuple[int, int, int]:
        """Columns of the matrices: hidden, all heads, intermediate."""
        config = self.config
        return config.hidden_size, config.num_attention_heads * config.head_dim, config.intermediate_size

    @property
    def group_bytes(self) -> int:
        """Bytes of a group of the tape."""
        return tape.group_bytes(self.layer_bits, self.zeros)

    def padded(self, columns: int) -> int:
        """Activations of a layer's product of so many columns, with what fills up its last group."""
        size = tape.CHUNKS * tape.columns_of_chunk(self.layer_bits)
        return -(-columns // size) * size

    def fault(self, gpu: Gpu) -> str | None:
        """Why the kernel cannot be made for this shape on `gpu`; None where it can."""
        config = self.config
        group = config.num_attention_heads // config.num_key_value_heads
        if gpu.capability < CAPABILITY:
            return f"the GPU has compute capability {gpu.capability[0]}.{gpu.capability[1]}, and it needs 8.0"
        if config.head_dim not in (64, 128):
            return f"heads of {config.head_dim} values; it has those of 64 and 128"
        if any(columns % COLUMNS for columns in self.columns):
            return f"a size of {', '.join(map(str, self.columns))} is no multiple of {COLUMNS}"
        if group > HEADS_PER_GROUP:
            return f"{group} query heads of a key-value head; it takes up to {HEADS_PER_GROUP}"
        launch = Launch.of(self, gpu)
        if config.num_key_value_heads > launch.blocks:
            return f"{config.num_key_value_heads} key-value heads for {launch.blocks} blocks"
        if launch.pages < 2:
            return f"{gpu.shared_bytes >> 10} KiB of shared memory hold no activations of this size"
        return None

    def macros(self, gpu: Gpu) -> dict[str, str]:
        """The macros of the source on `gpu`."""
        config, launch = self.config, Launch.of(self, gpu)
        values = {
            "H": config.hidden_size,
            "FF": config.intermediate_size,
            "NH": config.num_attention_heads,
            "KV": config.num_key_value_heads,
            "D": config.head_dim,
            "GATED": self.gated,
            "RMS": self.rms,
            "QK_NORM": self.qk_norm,
            "LAYER_BITS": self.layer_bits,
            "HEAD_BITS": self.head_bits,
            "FP16": self.fp16,
            "ZEROS": self.zeros,
            "SCALE_FP16": self.scale_fp16,
            "W": WARPS,
            "PAGES": launch.pages,
            "TILES": launch.tiles,
            "FLIGHT": launch.flight,
            "MAX_SPLITS": launch.splits,
            "BULK": gpu.capability >= BULK_CAPABILITY,
        }
        names = ("QKV_BIAS", "O_BIAS", "UP_BIAS", "DOWN_BIAS", "HEAD_BIAS")
        values |= dict(zip(names, self.biases, strict=True))
        return {name: str(int(value)) for name, value in values.items()} | {"EPSILON": f"{config.epsilon!r}f"}


@attrs.frozen(kw_only=True)
class Launch:
    """What follows from a shape and a GPU: the ring's pages, and what a launch is told."""

    blocks: int
    """One on each multiprocessor, an even number, no more than there are tiles of qkv or of the up projection: see
    step.cu."""
    pages: int
    flight: int
    """Pages under way at once."""
    tiles: int
    """Tiles whose sums a block holds at once."""
    splits: int
    """Blocks that share the cells of a key-value head at most."""
    shared_bytes: int

    @classmethod
    def of(cls, shape: Shape, gpu: Gpu) -> Launch:
        """As many pages as the GPU's shared memory holds beside the rest, whose layout is step.cu's."""
        config = shape.config
        hidden, heads, intermediate = shape.columns
        width = max(shape.padded(columns) for columns in (hidden, heads, tape.first_half(intermediate)))
        if shape.head_bits != shape.layer_bits:
            size = tape.CHUNKS * tape.columns_of_chunk(shape.head_bits)
            width = max(width, -(-config.hidden_size // size) * size)
        group = config.num_attention_heads // config.num_key_value_heads
        units = WARPS // (config.head_dim // 64)
        qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        up = config.intermediate_size * (1 + shape.gated)
        blocks = min(gpu.blocks, qkv // tape.ROWS, up // tape.ROWS) & ~1
        tiles = min(WARPS * 32 // tape.ROWS, -(-max(qkv, up, 2 * config.hidden_size) // tape.ROWS // blocks) + 1)
        activations = max(width * 2, units * group * (config.head_dim + 2) * 4)
        quantized = shape.layer_bits != 16 or shape.head_bits != 16
        rest = (
            -(-activations // 16) * 16
            + (width // 64 * 4 if quantized else 16)
            + tiles * WARPS * tape.ROWS * 4
            + config.head_dim * 4
            + 18 * config.head_dim * 2
            + 128 * 4
        )
        page = WARPS * shape.group_bytes
        pages = max(0, (gpu.shared_bytes - rest) // (page + 16))
        return cls(
            blocks=blocks,
            pages=pages,
            flight=max(1, min(pages, FLIGHT_BYTES // page)),
            tiles=tiles,
            splits=max(1, min(MOST_SPLITS, blocks // config.num_key_value_heads)),
            shared_bytes=rest + pages * (page + 16),
        )


def source() -> str:
    """The source of the kernel."""
    return files("codellm_gpu.cuda").joinpath("step.cu").read_text()


def compile_step(macros: Mapping[str, str], capability: tuple[int, int], *, driver: str = "") -> bytes:
    """Machine code of the kernel, from the cache where it was compiled before (NVRTC takes about 3 s).

    Raises:
        BackendUnavailableError: cuda-core or NVRTC is not installed, or refuses the source.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        raise BackendUnavailableError("cuda-core is not installed; pip install cuda-core")
    import cuda.core

    text, arch = source(), f"sm_{capability[0]}{capability[1]}"
    facts = [text, repr(sorted(macros.items())), arch, cuda.core.__version__, driver]
    path = cache_path() / "kernels" / f"{hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:32]}.cubin"
    if path.is_file():
        return path.read_bytes()
    code = _compiled(text, macros, arch)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{torch.randint(1 << 62, ()).item()}")
    temporary.write_bytes(code)
    temporary.replace(path)
    return code


def _compiled(text: str, macros: Mapping[str, str], arch: str) -> bytes:
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(std="c++17", arch=arch, define_macro=list(macros.items()))
    try:
        return bytes(Program(text, "c++", options).compile("cubin").code)
    except Exception as error:  # whatever is missing: NVRTC's library, an architecture it does not know, a header
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendUnavailableError(f"NVRTC cannot compile the step kernel for {arch} ({reason})") from error


class StepKernel:
    """The step of `decoder` for one sequence of `cache`: weights laid out on a tape, kernel ready.

    Raises:
        BackendUnavailableError: it cannot be made, or its copy of the weights leaves fewer than `room` bytes free.
    """

    def __init__(self, config: Config, decoder: Decoder, cache: Cache, vocab_size: int, room: int = 0) -> None:
        device = decoder.embedding.weight.device
        shape, gpu = Shape.of(config, decoder), Gpu.of(device)
        reason = shape.fault(gpu)
        if reason is not None:
            raise BackendUnavailableError(f"the step kernel: {reason}")
        self._load(compile_step(shape.macros(gpu), gpu.capability), Launch.of(shape, gpu), gpu, device)
        blocks, size = Launch.of(shape, gpu).blocks, shape.group_bytes
        try:
            self.tape = tape.Tape.of(decoder, blocks=blocks, warps=WARPS, size=size, zeros=shape.zeros)
        except torch.OutOfMemoryError:
            raise no_room() from None
        torch.cuda.empty_cache()  # of what was packed
        if torch.cuda.mem_get_info(device)[0] < room:
            raise no_room()
        self._keep(shape, gpu, decoder, cache, vocab_size)

    def _load(self, code: bytes, launch: Launch, gpu: Gpu, device: torch.device) -> None:
        from cuda.bindings import driver
        from cuda.core import Device, LaunchConfig, ObjectCode

        torch.cuda.init()  # type: ignore[no-untyped-call]
        index = torch.cuda.current_device() if device.index is None else device.index
        self._device = Device(index)
        self._device.set_current()
        self._code = ObjectCode.from_cubin(code)
        self._kernel = self._code.get_kernel("step")
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        (status,) = driver.cuKernelSetAttribute(attribute, launch.shared_bytes, int(self._kernel.handle), index)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise BackendUnavailableError(f"the driver grants the step kernel no shared memory ({status.name})")
        self._config = LaunchConfig(
            grid=launch.blocks, block=(WARPS + 1) * 32, shmem_size=launch.shared_bytes, is_cooperative=True
        )

    def _keep(self, shape: Shape, gpu: Gpu, decoder: Decoder, cache: Cache, vocab_size: int) -> None:
        config, launch = shape.config, Launch.of(shape, gpu)
        device = decoder.embedding.weight.device

        def room(*extents: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(extents, dtype=dtype, device=device)

        hidden, heads, intermediate = shape.columns
        rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        slots = len(cache.keys[0])
        self.logits = room(slots, decoder.lm_head.out_features)
        self._chosen = [(room(slots, dtype=torch.int64), room(slots)) for _ in range(2)]
        self._turn, self.likeliest = 0, self._chosen[0]
        self._cache = cache  # whose memory the addresses below are of
        keys, values = (
            torch.tensor([layer.data_ptr() for layer in part], device=device) for part in (cache.keys, cache.values)
        )
        self._tensors = (
            *(self.tape.data, self.tape.starts, self.tape.pages, self.tape.vectors, self.tape.norms),
            *(decoder.embedding.weight, decoder.cos, decoder.sin, keys, values),
        )
        self._scratch = (
            *(room(shape.padded(heads), dtype=torch.int16), room(shape.padded(intermediate), dtype=torch.int16)),
            *(room(3, hidden), room(rows)),
            room(config.num_attention_heads, launch.splits, config.head_dim + 4),
            *(room(launch.blocks + 1, dtype=torch.int64), room(launch.blocks, 2)),
            torch.zeros(160, dtype=torch.int32, device=device).index_fill_(0, torch.tensor([2], device=device), 1),
        )
        sizes = map(np.int32, (cache.ring, cache.window, config.num_hidden_layers, vocab_size, self.logits.shape[1]))
        self._arguments = (
            *(tensor.data_ptr() for tensor in (*self._tensors, *self._scratch)),
            *sizes,
        )

    def __call__(self, ids: torch.Tensor, slot: int, position: int) -> torch.Tensor:
        """Compute the token that `ids` [P] has for `slot`, at `position` → logits [P, V] in float32, of it alone.

        `likeliest` then has the likeliest id after it and the logarithm of its probability, both [P]. The logits are
        good until the next step, those until the one after it.
        """
        from cuda.core import launch

        self._turn ^= 1
        self.likeliest = self._chosen[self._turn]
        own = (tensor[slot].data_ptr() for tensor in (self.logits, ids, *self.likeliest))
        stream = CurrentStream(torch.cuda.current_stream().cuda_stream)
        launch(stream, self._config, self._kernel, *self._arguments, np.int32(slot), np.int32(position), *own)
        return self.logits


def no_room() -> BackendUnavailableError:
    """The error of a GPU that does not hold the weights twice."""
    return BackendUnavailableError("the step kernel: the GPU has no room for its copy of the weights")


@attrs.frozen
class CurrentStream:
    """A stream of torch's, by the protocol in which cuda-core takes it."""

    handle: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle
