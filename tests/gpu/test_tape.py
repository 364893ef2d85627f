"""The tape of the step kernel: a plain emulation of what the kernel reads gives the product back, for any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_gpu.cuda import tape
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
    warps=st.integers(1, 6),
    turn=st.integers(0, 9),
    zeros=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_the_kernel_reads_is_the_product(bits, tiles, chunks, blocks, warps, turn, zeros, seed):
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
    found = multiplied(parts, bits, rows, activations(x, bits), turn=turn, warps=warps, zeros=zeros and bits == 4)
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
