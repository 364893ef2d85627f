"""What the step kernel is compiled for: a model's shape on a GPU, and whether it can be made for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch

from codellm_gpu.cuda import tape

if TYPE_CHECKING:
    from codellm.sources.architecture import Config
    from codellm.torch.decoder import Decoder

CAPABILITY = (8, 0)
"""Ampere: the first with copies into shared memory that nobody waits for, and products of bfloat16."""
BULK_CAPABILITY = (9, 0)
"""Hopper: the first whose copy engine takes a page by one instruction."""
WARPS = 11
"""Consumer warps of a block; the producer is one more."""
FLIGHT_BYTES = 50 << 10
"""Bytes of a block's pages that are under way at once: what memory needs to be at its best (Little), no more."""
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
            shared_bytes=found.shared_memory_per_block_optin,  # type: ignore[attr-defined]  # missing from its stub
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
            flight=max(1, min(pages, FLIGHT_BYTES // page + (shape.layer_bits == 16))),
            tiles=tiles,
            splits=max(1, min(MOST_SPLITS, blocks // config.num_key_value_heads)),
            shared_bytes=rest + pages * (page + 16),
        )
