"""The order in which weights lie for the step kernel: each block reads its own part from end to end.

A tile is 8 rows of a matrix. Along the columns it is cut into groups of 4 chunks; a chunk is 512 bytes, 8 rows by 32
columns of 16 bits, 64 of 8 or 128 of 4, so that each of a warp's 32 lanes (4 a row) finds 16 bytes that follow each
other in the row. Behind the chunks of int4 stand the scales of the group, [8 rows, 4 chunks] of 16 bits, and its zero
points, bytes in the same order, where the model has them. Tiles of all products are dealt to the blocks in turn,
without beginning again at a product, and the groups of a block to its warps in turn: a page is one group of each warp.
The tile of a gated product has 4 rows of the gate, then the same 4 of the other part; of the down projection each tile
comes twice, for two halves of the columns, so that its few tiles are shared out evenly.

N rows, K columns of a matrix; M blocks of the grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm.torch.decoder import Decoder

ROWS = 8
"""Rows of a tile."""
CHUNK_BYTES = 512
CHUNKS = 4
"""Chunks of a group."""
NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where each of 8 codes of 4 bits lies in its word: pairs 16 bits apart become two halves by one operation."""


@attrs.frozen(eq=False)
class Projection:
    """A matrix as the kernel multiplies it: `codes` [N, K] of `bits`, or the weights themselves where those are 16.

    A weight of int8 is (code - 128) * scales[n]; of int4 (code - zero) * scales[n, k / 128], zero 8 without `zeros`.
    """

    bits: int
    codes: torch.Tensor
    scales: torch.Tensor | None
    zeros: torch.Tensor | None
    bias: torch.Tensor | None

    @classmethod
    def of(cls, module: Any, *, zeros: bool) -> Projection:
        """The projection `module` of a decoder, plain or quantized; with `zeros`, int4 has zero points in any case."""
        bits = bits_of(module)
        if bits != 4:
            return cls(
                bits, module.codes() if bits == 8 else module.weight, getattr(module, "scales", None), None, module.bias
            )
        points = module.zeros
        if zeros and points is None:
            points = torch.full(module.scales.shape, 8, dtype=torch.uint8, device=module.scales.device)
        return cls(bits, module.codes(), module.scales, points, module.bias)

    def part(self, begin: int, end: int | None) -> Projection:
        """The columns from `begin` to `end`, whole groups of int4."""
        grouped = slice(begin // 128, None if end is None else end // 128)
        scales, zeros = self.scales, self.zeros
        if self.bits == 4 and scales is not None:
            scales, zeros = scales[:, grouped], None if zeros is None else zeros[:, grouped]
        return Projection(self.bits, self.codes[:, begin:end], scales, zeros, self.bias)

    def paired(self) -> Projection:
        """The same with rows in the order of a gated product's tiles."""
        order = gated_order(len(self.codes)).to(self.codes.device)
        scales, zeros, bias = (None if part is None else part[order] for part in (self.scales, self.zeros, self.bias))
        return Projection(self.bits, self.codes[order], scales, zeros, bias)


def bits_of(module: Any) -> int:
    """Bits of a weight of a decoder's projection, as the kernel reads it."""
    return 16 if not hasattr(module, "codes") else 8 if module.scales.ndim == 1 else 4


def gated_order(rows: int) -> torch.Tensor:
    """Rows of gate and up, one after the other, in the order of the tape: [rows]."""
    half = ROWS // 2
    return torch.arange(rows).view(2, rows // ROWS, half).permute(1, 0, 2).reshape(-1)


def first_half(columns: int) -> int:
    """Columns of the first of two halves, in whole chunks of 4 bits; the second has as many or fewer."""
    return -(-columns // 256) * 128


def columns_of_chunk(bits: int) -> int:
    """Columns of a chunk: 32, 64 or 128."""
    return CHUNK_BYTES // bits


def groups_of_tile(bits: int, columns: int) -> int:
    """Groups of a tile of so many columns: the last is filled up with zeros."""
    return -(-columns // (CHUNKS * columns_of_chunk(bits)))


def group_bytes(bits: int, zeros: bool) -> int:
    """Bytes of a group with what stands behind its chunks."""
    return CHUNKS * CHUNK_BYTES + (CHUNKS * ROWS * (3 if zeros else 2) if bits == 4 else 0)


def pack_halves(projection: Projection, size: int) -> torch.Tensor:
    """Tiles of the two halves of a matrix's columns in turn, as `pack` has them: uint8 [N / 8 * 2, groups, size]."""
    half = first_half(projection.codes.shape[1])
    first, second = pack(projection.part(0, half), size), pack(projection.part(half, None), size)
    missing = first.shape[1] - second.shape[1]
    second = torch.nn.functional.pad(second, (0, 0, 0, missing))
    return torch.stack([first, second], dim=1).flatten(0, 1)


def pack(projection: Projection, size: int) -> torch.Tensor:
    """Tiles of a matrix in groups of `size` bytes: uint8 [N / 8, groups, size]; rows are filled up with zeros."""
    bits, (rows, columns) = projection.bits, projection.codes.shape
    tiles, groups = -(-rows // ROWS), groups_of_tile(bits, columns)
    padded = torch.nn.functional.pad(
        projection.codes, (0, groups * CHUNKS * columns_of_chunk(bits) - columns, 0, tiles * ROWS - rows)
    )
    lanes = padded.view(tiles, ROWS, groups, CHUNKS, 4, -1).permute(0, 2, 3, 1, 4, 5)  # a lane's columns are last
    if bits == 4:
        lanes = _words(lanes)
    packed = torch.zeros((tiles, groups, size), dtype=torch.uint8, device=padded.device)
    chunks = lanes.reshape(tiles, groups, -1).contiguous().view(torch.uint8)
    packed[:, :, : chunks.shape[-1]] = chunks
    end = chunks.shape[-1]
    for part in (projection.scales, projection.zeros) if bits == 4 else ():
        if part is not None:
            beside = _beside(part, tiles, groups)
            packed[:, :, end : end + beside.shape[-1]] = beside
            end += beside.shape[-1]
    return packed


def _words(lanes: torch.Tensor) -> torch.Tensor:
    """Codes of 4 bits [..., 32] → bytes [..., 16], words of 8 codes in the order of `NIBBLES`."""
    words = lanes.view(*lanes.shape[:-1], 4, 8)
    inverse = [NIBBLES.index(place) for place in range(8)]
    ordered = words[..., inverse]
    packed: torch.Tensor = ordered[..., ::2] | ordered[..., 1::2] << 4
    return packed.flatten(-2)


def _beside(part: torch.Tensor, tiles: int, groups: int) -> torch.Tensor:
    """Scales or zero points [N, K / 128] → bytes [tiles, groups, ...], [8 rows, 4 chunks] of each group."""
    rows, chunks = part.shape
    padded = torch.nn.functional.pad(part, (0, groups * CHUNKS - chunks, 0, tiles * ROWS - rows))
    ordered = padded.view(tiles, ROWS, groups, CHUNKS).permute(0, 2, 1, 3)
    return ordered.reshape(tiles, groups, -1).contiguous().view(torch.uint8)


@attrs.define
class Dealer:
    """Deals tiles to `blocks` as the kernel takes them; `taken` are the groups that each has so far."""

    blocks: int
    turn: int = 0
    taken: npt.NDArray[np.int64] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.taken = np.zeros(self.blocks, np.int64)

    def deal(self, tiles: int, groups: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each tile of a product, of so many groups: its block, and where its groups begin among the block's."""
        number = np.arange(tiles)
        block = (self.turn + number) % self.blocks
        begin = self.taken[block] + number // self.blocks * groups
        self.taken += np.bincount(block, minlength=self.blocks) * groups
        self.turn += tiles
        return block, begin


@attrs.frozen(eq=False)
class Tape:
    """The weights of a decoder for a grid of M blocks of W warps."""

    data: torch.Tensor
    """uint8: the blocks' parts, one after the other."""
    starts: torch.Tensor
    """Where each begins, in bytes: int64 [M]."""
    pages: torch.Tensor
    """How many pages each has: int32 [M]."""
    vectors: torch.Tensor
    """Bias, then int8's scales, of each product in turn: float32."""
    norms: torch.Tensor
    """Weight and bias of the norms in the order of use, those of queries and keys between a layer's two: [...]."""

    @classmethod
    def of(cls, decoder: Decoder, *, blocks: int, warps: int, size: int, zeros: bool) -> Tape:
        """The tape of `decoder`, in groups of `size` bytes, with zero points where int4 has `zeros`.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
        """
        dealer, places = Dealer(blocks), []
        for part in parts(decoder):
            rows, columns = shape_of(part.module)
            columns = first_half(columns) if part.halved else columns
            groups = groups_of_tile(bits_of(part.module), columns)
            places.append((dealer.deal(-(-rows // ROWS) * (1 + part.halved), groups), groups))
        pages = -(-dealer.taken // warps)
        starts = np.concatenate([[0], np.cumsum(pages * warps)])
        device = decoder.embedding.weight.device
        data = torch.zeros((int(starts[-1]), size), dtype=torch.uint8, device=device)
        vectors = []
        for part, ((block, begin), groups) in zip(parts(decoder), places, strict=True):
            projection = Projection.of(part.module, zeros=zeros)
            projection = projection.paired() if part.gated else projection
            first = torch.from_numpy(starts[block] + begin).to(device)
            index = (first[:, None] + torch.arange(groups, device=device)).flatten()
            packed = (pack_halves if part.halved else pack)(projection, size)
            data.index_copy_(0, index, packed.view(-1, size))
            vectors += vectors_of(projection)
        return cls(
            data=data,
            starts=torch.from_numpy(starts[:-1] * size).to(device),
            pages=torch.from_numpy(pages.astype(np.int32)).to(device),
            vectors=torch.cat([*vectors, torch.zeros(1, device=device)]),
            norms=torch.cat(list(norms(decoder))),
        )


@attrs.frozen(eq=False)
class Part:
    """A projection of a decoder: whether it is gate and up in one, and whether its columns come in halves."""

    module: Any
    gated: bool = False
    halved: bool = False


def parts(decoder: Decoder) -> Iterator[Part]:
    """The projections of `decoder` in the order in which a step multiplies by them."""
    for layer in layers(decoder):
        yield Part(layer.attention.qkv)
        yield Part(layer.attention.o_proj)
        yield Part(layer.feed_forward.up, gated=layer.feed_forward.gated)
        yield Part(layer.feed_forward.down, halved=True)
    yield Part(decoder.lm_head)


def norms(decoder: Decoder) -> Iterator[torch.Tensor]:
    """Weights and biases of the norms in the order of use."""
    for layer in layers(decoder):
        heads = (getattr(layer.attention, name, None) for name in ("q_norm", "k_norm"))
        for norm in (layer.attention_norm, *heads, layer.feed_forward_norm):
            yield from () if norm is None else norm.parameters()
    yield from decoder.norm.parameters()


def layers(decoder: Decoder) -> Iterable[Any]:
    """The layers of `decoder`, by the names of `codellm.torch.decoder.Layer`."""
    return decoder.layers


def shape_of(module: Any) -> tuple[int, int]:
    """Rows and columns of a projection."""
    return module.out_features, module.in_features


def vectors_of(projection: Projection) -> list[torch.Tensor]:
    """Bias and scales of a product as the kernel reads them, filled up to whole tiles: float32 each."""
    parts = [projection.bias] if projection.bias is not None else []
    if projection.bits == 8 and projection.scales is not None:
        parts.append(projection.scales)
    return [torch.nn.functional.pad(part.float(), (0, -len(part) % ROWS)) for part in parts]
