"""The tape of the step kernel: a plain emulation of what the kernel reads gives the product back, for any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm.sources import TensorInfo, Tensors
from codellm.sources.architectures import ARCHITECTURES
from codellm.torch.decoder import Decoder
from codellm.torch.weights import Weights
from codellm_gpu.cuda import tape
from codellm_gpu.cuda.quantized_weights import quantized_weights
from support.step_emulator import activations, multiplied

BITS = (16, 8, 4)


def projection(bits: int, rows: int, columns: int, *, zeros: bool, seed: int) -> tuple[tape.Projection, np.ndarray]:
    """A random matrix as the kernel takes it, and its values in float64 [N, K]."""
    torch.manual_seed(seed)
    if bits == 16:
        weight = torch.randn(rows, columns).to(torch.float16)
        return tape.Projection(16, weight, None, None, None), weight.double().numpy()
    codes = torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8)
    if bits == 8:
        scales = torch.rand(rows) + 0.5
        return tape.Projection(8, codes, scales, None, None), (
            (codes.double() - 128) * scales.double()[:, None]
        ).numpy()
    scales = (torch.rand(rows, columns // 128) + 0.5).to(torch.float16)
    points = torch.randint(0, 16, scales.shape, dtype=torch.uint8) if zeros else torch.full(scales.shape, 8)
    values = (codes.double().view(rows, -1, 128) - points[..., None]) * scales.double()[..., None]
    return tape.Projection(4, codes, scales, points if zeros else None, None), values.view(rows, columns).numpy()


@settings(max_examples=40)
@given(
    bits=st.sampled_from(BITS),
    tiles=st.integers(1, 7),
    chunks=st.integers(1, 11),
    blocks=st.integers(1, 5),
    turn=st.integers(0, 9),
    zeros=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_the_kernel_reads_is_the_product(bits, tiles, chunks, blocks, turn, zeros, seed):
    rows, columns = tiles * 8, chunks * 128
    made, values = projection(bits, rows, columns, zeros=zeros and bits == 4, seed=seed)
    size = tape.group_bytes(bits, zeros and bits == 4)
    groups = tape.groups_of_tile(bits, columns)
    dealer = tape.Dealer(blocks, turn)
    block, begin = dealer.deal(tiles, groups)
    packed = tape.pack(made, size).numpy()
    parts = [np.zeros((count, size), np.uint8) for count in dealer.taken]
    for tile in range(tiles):
        parts[block[tile]][begin[tile] : begin[tile] + groups] = packed[tile]
    x = np.random.default_rng(seed).standard_normal(columns).astype(np.float16)
    found = multiplied(parts, bits, tiles, [activations(x, bits)], turn=turn, zeros=zeros and bits == 4)
    if bits == 8:
        found = found * made.scales.double().numpy()
    wanted = values @ x.astype(np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2 * np.abs(values).max() * np.sqrt(columns))


@pytest.mark.parametrize("bits", BITS)
def test_a_row_that_is_missing_from_the_last_tile_is_zero(bits):
    made, _ = projection(bits, 11, 128, zeros=False, seed=1)
    packed = tape.pack(made, tape.group_bytes(bits, zeros=False))
    chunks = packed[1, :, : tape.CHUNKS * tape.CHUNK_BYTES].view(-1, tape.CHUNKS, tape.ROWS, 64)
    assert not chunks[:, :, 3:].any()
    assert chunks[:, :, :3].any()


@given(tiles=st.integers(1, 40), half=st.integers(1, 5))
def test_a_gated_tile_has_four_rows_of_each_half(tiles, half):
    order = tape.gated_order(8 * tiles).view(tiles, 2, 4)
    assert torch.equal(order[:, 0], torch.arange(4 * tiles).view(tiles, 4))
    assert torch.equal(order[:, 1], order[:, 0] + 4 * tiles)


@given(blocks=st.integers(1, 140), products=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), max_size=6))
def test_tiles_are_dealt_without_a_gap(blocks, products):
    dealer = tape.Dealer(blocks)
    ends = [0] * blocks
    turn = 0
    for tiles, groups in products:
        block, begin = dealer.deal(tiles, groups)
        for tile in range(tiles):
            assert block[tile] == (turn + tile) % blocks
            assert begin[tile] == ends[block[tile]]
            ends[block[tile]] += groups
        turn += tiles
    assert dealer.taken.tolist() == ends
    assert turn == dealer.turn


def tiny(kind: str, **fields) -> tuple[object, dict[str, TensorInfo]]:
    """A configuration of `kind` whose feed-forward layer has an odd number of whole chunks, and its tensors."""
    raw = {
        "model_type": kind,
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "vocab_size": 44,
    } | fields
    architecture = ARCHITECTURES[kind]
    config = architecture.read(raw, "test")
    return config, {name: TensorInfo(name, shape, "float16") for name, shape in architecture.shapes(config).items()}


class Random(Tensors):
    """Random tensors of any names and shapes."""

    def __init__(self, infos: dict[str, TensorInfo]) -> None:
        self._infos = infos

    def infos(self) -> tuple[TensorInfo, ...]:
        return tuple(self._infos.values())

    def read(self, name: str) -> np.ndarray:
        random = np.random.default_rng(list(name.encode()))
        return random.standard_normal(self._infos[name].shape).astype(np.float16)


@pytest.mark.parametrize("scheme", [None, "int8", "int4"])
@pytest.mark.parametrize("kind", ["starcoder2", "llama", "qwen3"])
def test_the_tape_of_a_decoder_holds_its_products_in_the_order_of_a_step(kind, scheme):
    config, infos = tiny(kind)
    device = torch.device("cpu")
    weights = (
        Weights(Random(infos), infos, dtype=torch.float16, device=device)
        if scheme is None
        else quantized_weights(scheme, Random(infos), infos, torch.float16, device)
    )
    decoder = Decoder(config, weights, 64)
    blocks, size = 6, tape.group_bytes(4 if scheme == "int4" else 16, zeros=False)
    made = tape.Tape.of(decoder, blocks=blocks, warps=5, size=size, zeros=False)
    regions = [
        made.data[start // size : start // size + pages * 5].numpy()
        for start, pages in zip(made.starts.tolist(), made.pages.tolist(), strict=True)
    ]
    dealer, vectors = tape.Dealer(blocks), made.vectors.numpy()
    for part in tape.parts(decoder):
        rows, columns = tape.shape_of(part.module)
        bits, begin, turn = tape.bits_of(part.module), dealer.taken.copy(), dealer.turn
        x = np.random.default_rng(1).standard_normal(columns).astype(np.float16)
        half = tape.first_half(columns) if part.halved else columns
        pieces = [activations(x[:half], bits)]
        if part.halved:
            second = activations(x[half:], bits)
            pieces.append(np.pad(second, (0, len(pieces[0]) - len(second))))
        tiles = -(-rows // 8) * len(pieces)
        dealer.deal(tiles, tape.groups_of_tile(bits, half))
        read = [region[first:last] for region, first, last in zip(regions, begin, dealer.taken, strict=True)]
        found = multiplied(read, bits, tiles, pieces, turn=turn, zeros=False)
        found = found.reshape(-1, len(pieces), 8).sum(axis=1).reshape(-1)
        bias, vectors = (vectors[: len(found)], vectors[len(found) :]) if part.module.bias is not None else (0, vectors)
        if bits == 8:
            found, vectors = found * vectors[: len(found)], vectors[len(found) :]
        wanted = part.module(torch.from_numpy(x)[None]).double().numpy()[0]
        order = tape.gated_order(rows).numpy() if part.gated else slice(None)
        np.testing.assert_allclose((found + bias)[:rows], wanted[order], rtol=0.02, atol=0.02 * np.abs(wanted).max())
    assert len(vectors) == 1  # what keeps an address where a model has none of them
