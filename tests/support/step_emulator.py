"""What the step kernel reads, spelled out: fragments of the tensor cores' m16n8k16 made of the bytes of a tape.

Layout of the fragments: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type". A lane is 4 * g + q: its
A has rows g and g + 8, its B column g, and columns (or rows of B) 2q, 2q + 1, 2q + 8, 2q + 9.
"""

from __future__ import annotations

import numpy as np

CHUNKS = 4


def place(k: int, bits: int) -> int:
    """Where element `k` of the activations lies: `place` of step.cu."""
    if bits == 8:
        return (k & ~15) | (k & 4) << 1 | (k & 8) >> 1 | (k & 3)
    if bits == 4:
        return (k & ~127) | (k & 16) << 2 | (k & 96) >> 1 | (k & 4) << 1 | (k & 8) >> 1 | (k & 3)
    return k


def activations(x: np.ndarray, bits: int) -> np.ndarray:
    """`x` [K] as it lies in shared memory, filled up to whole groups: float64."""
    size = CHUNKS * 512 // bits
    stored = np.zeros(-(-len(x) // size) * size)
    for k, value in enumerate(x):
        stored[place(k, bits)] = value / 16 if bits == 4 and k & 2 else value
    return stored


def multiplied(
    parts: list[np.ndarray], bits: int, tiles: int, x: list[np.ndarray], *, turn: int, zeros: bool
) -> np.ndarray:
    """The product [tiles * 8] of the groups that each block has in `parts`, without int8's scales.

    Tile i takes the activations i modulo the number of `x`.
    """
    blocks, groups = len(parts), len(x[0]) // (CHUNKS * 512 // bits)
    result = np.zeros(tiles * 8)
    for index, part in enumerate(parts):
        first = (index - turn) % blocks
        for number, data in enumerate(part):
            tile, group = first + number // groups * blocks, number % groups
            assert tile < tiles
            own = x[tile % len(x)]
            result[tile * 8 : tile * 8 + 8] += group_product(data, bits, own, group, zeros=zeros)
    return result


def group_product(data: np.ndarray, bits: int, x: np.ndarray, group: int, *, zeros: bool) -> np.ndarray:
    """What one group adds to the 8 rows of its tile: `multiply` of step.cu."""
    step = 512 // bits
    sums = np.zeros(8)
    for chunk in range(CHUNKS):
        lanes = data[chunk * 512 : chunk * 512 + 512].reshape(32, 16)
        begin = (group * CHUNKS + chunk) * step
        c = np.zeros((16, 8))
        for number in range({16: 1, 8: 2, 4: 4}[bits]):
            c += fragment_a(lanes, bits, number) @ fragment_b(x, bits, begin, number)
        value = c[:8, 0] + c[8:, 1]  # c0 and c3 of the lanes with q = 0
        stored = x[begin : begin + step].reshape(-1, 4)
        if bits == 8:
            value -= 1152 * stored.sum()
        if bits == 4:
            value -= (stored * [1032, 1032, 1152, 1152]).sum()
            beside = data[CHUNKS * 512 :]
            if zeros:
                points = beside[64:96].reshape(8, CHUNKS)[:, chunk].astype(np.float64)
                value -= (stored * [1, 1, 16, 16]).sum() * (points - 8)
            value *= beside[:64].view(np.float16).reshape(8, CHUNKS)[:, chunk].astype(np.float64)
        sums += value
    return sums


def fragment_a(lanes: np.ndarray, bits: int, number: int) -> np.ndarray:
    """The weights of one product: A [16, 16], of which a lane has a0 to a3, each of two columns."""
    a = np.zeros((16, 16))
    for lane in range(32):
        g, q = divmod(lane, 4)
        for register, pair in enumerate(registers(lanes[lane], bits, number)):
            row, column = g + 8 * (register & 1), 2 * q + 8 * (register >> 1)
            a[row, column : column + 2] = pair
    return a


def registers(data: np.ndarray, bits: int, number: int) -> list[tuple[float, float]]:
    """What a lane passes as a0 to a3: halves as numbers."""
    if bits == 16:
        w = data.view(np.float16).astype(np.float64).reshape(4, 2)
        return [tuple(w[i]) for i in (0, 2, 1, 3)]
    if bits == 8:
        first, second = data[8 * number : 8 * number + 4], data[8 * number + 4 : 8 * number + 8]
        pairs = (first[:2], second[:2], first[2:], second[2:])
        return [(1024 + float(low), 1024 + float(high)) for low, high in pairs]
    word = int(data.view(np.uint32)[number])
    found = []
    for shift, mask in ((0, 0x000F000F), (8, 0x000F000F), (0, 0x00F000F0), (8, 0x00F000F0)):
        u = (word >> shift & mask | 0x64006400).to_bytes(4, "little")
        low, high = np.frombuffer(u, np.float16).astype(np.float64)
        found.append((low, high))
    return found


def fragment_b(x: np.ndarray, bits: int, begin: int, number: int) -> np.ndarray:
    """The activations of one product: B [16, 8], of which a lane has b0 and b1, each of two rows."""
    b = np.zeros((16, 8))
    for lane in range(32):
        column, q = divmod(lane, 4)
        half = column & 1
        if bits == 16:
            at = begin + q * 8 + half * 4
        elif bits == 8:
            at = begin + q * 16 + half * 8 + number * 4
        else:
            at = begin + q * 16 + half * 8 + (number >> 1) * 64 + (number & 1) * 4
        b[2 * q : 2 * q + 2, column] = x[at : at + 2]
        b[2 * q + 8 : 2 * q + 10, column] = x[at + 2 : at + 4]
    return b
