"""Attention of a step's rows to the cells of their slots: flash decoding (Dao et al. 2023), in one kernel.

A program has one row, one key-value head with all query heads that share it, and a part of the tokens that the row
sees; where a row has several parts, the last program to finish puts them together, in their order. How many parts there
are is told by the row's own position: no row waits for the longest context of a batch.
"""

from __future__ import annotations

import attrs
import torch
import triton
import triton.language as tl

from codellm_gpu.cuda.place import Rows

BLOCK = 64
"""Tokens that a program looks at together."""
LEAST = 2
"""Blocks of a part: below that, to put parts together takes longer than to go on."""
MOST = 32
"""Parts of a row."""


@attrs.frozen(eq=False)
class Parts:
    """What the parts of rows leave for the last: weighted values, greatest scores, weights, and how many are done."""

    values: torch.Tensor  # float32 [M, KV, S, G, D]
    scores: torch.Tensor  # float32 [M, KV, S, G]
    weights: torch.Tensor
    done: torch.Tensor  # int32 [M, KV], all zero between two steps

    @classmethod
    def allocate(
        cls, rows: int, heads: int, kv_heads: int, head_dim: int, programs: int, device: torch.device
    ) -> Parts:
        """Room for `rows` rows, cut so that there are about `programs` programs."""
        count = min(MOST, max(1, programs // (rows * kv_heads)))
        shape = (rows, kv_heads, 1 << (count.bit_length() - 1), group(heads, kv_heads))
        scores, weights = (torch.empty(shape, device=device) for _ in range(2))
        done = torch.zeros(rows, kv_heads, dtype=torch.int32, device=device)
        return cls(torch.empty(*shape, triton.next_power_of_2(head_dim), device=device), scores, weights, done)


def group(heads: int, kv_heads: int) -> int:
    """Query heads of a key-value head, as a product of matrices takes them: a power of two, 16 at least."""
    return max(16, int(triton.next_power_of_2(heads // kv_heads)))


def attend(
    queries: torch.Tensor,  # [M, N * D]
    keys: torch.Tensor,  # [P, R, KV, D]
    values: torch.Tensor,
    rows: Rows,
    window: int,
    parts: Parts,
    out: torch.Tensor,  # [M, N * D]
) -> None:
    """Attend with each row to the last `window` tokens of its slot up to its position → `out`.

    A row sees what the rows of its slot before it have written: the cells of a step are written before. With a window
    the ring holds the window and the other rows of the slot, as `ring_size` makes it.
    """
    _, ring, kv_heads, head_dim = keys.shape
    _, _, most, size = parts.scores.shape
    _attend[(len(rows), kv_heads, most)](
        queries=queries,
        keys=keys,
        values=values,
        places=rows.places,
        count=len(rows),
        window=window,
        ring=ring,
        scale=head_dim**-0.5 * 1.4426950408889634,
        part_values=parts.values,
        part_scores=parts.scores,
        part_weights=parts.weights,
        done=parts.done,
        out=out,
        KV=kv_heads,
        G=queries.shape[1] // head_dim // kv_heads,
        D=head_dim,
        SIZE=size,
        WIDE=triton.next_power_of_2(head_dim),
        MOST=most,
        LEAST=LEAST,
        BLOCK=BLOCK,
        num_warps=4,
        num_stages=3 if queries.element_size() == 2 else 2,
        enable_fp_fusion=True,  # as it was by default; Triton 3.9 wants it said
    )


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _attend(  # noqa: PLR0915 - a kernel is one function
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    places: tl.tensor,
    count: int,
    window: int,
    ring: int,
    scale: float,
    part_values: tl.tensor,
    part_scores: tl.tensor,
    part_weights: tl.tensor,
    done: tl.tensor,
    out: tl.tensor,
    KV: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    MOST: tl.constexpr,
    LEAST: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot, position = tl.load(places + row), tl.load(places + count + row)
    first = tl.maximum(position + 1 - window, 0)
    length = position + 1 - first
    blocks = tl.cdiv(length, BLOCK)
    each = tl.maximum(tl.cdiv(blocks, MOST), LEAST)
    active = tl.cdiv(blocks, each)
    if (position >= 0) & (part < active):
        heads, d = tl.arange(0, SIZE), tl.arange(0, WIDE)
        inside = (heads < G)[:, None] & (d < D)[None, :]
        place = (row * KV + kv) * G * D + heads[:, None] * D + d[None, :]
        query = tl.load(queries + place, mask=inside, other=0.0)
        begin = first % ring
        base = slot.to(tl.int64) * ring * KV * D + kv * D
        greatest = tl.full((SIZE,), float("-inf"), tl.float32)
        weight = tl.zeros((SIZE,), tl.float32)
        total = tl.zeros((SIZE, WIDE), tl.float32)
        for block in range(part * each, tl.minimum((part + 1) * each, blocks)):
            token = block * BLOCK + tl.arange(0, BLOCK)  # of those that the row sees
            cell = begin + token
            cell = tl.where(cell >= ring, cell - ring, cell)
            at = base + cell[:, None] * (KV * D) + d[None, :]
            held = (token < length)[:, None] & (d < D)[None, :]
            key = tl.load(keys + at, mask=held, other=0.0)
            score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
            score = tl.where((token < length)[None, :], score, float("-inf"))
            higher = tl.maximum(greatest, tl.max(score, 1))
            shrink = tl.exp2(greatest - higher)
            chance = tl.exp2(score - higher[:, None])
            value = tl.load(values + at, mask=held, other=0.0)
            total = tl.dot(chance.to(value.dtype), value, total * shrink[:, None], input_precision="ieee")
            weight = weight * shrink + tl.sum(chance, 1)
            greatest = higher
        if active == 1:
            tl.store(out + place, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)
        else:
            group = (row * KV + kv) * MOST
            line = group * SIZE + heads
            tl.store(part_values + (line + part * SIZE)[:, None] * WIDE + d[None, :], total)
            tl.store(part_scores + line + part * SIZE, greatest)
            tl.store(part_weights + line + part * SIZE, weight)
            tl.debug_barrier()  # every thread has stored before one of them says so
            if tl.atomic_add(done + row * KV + kv, 1, sem="acq_rel", scope="gpu") == active - 1:
                tl.store(done + row * KV + kv, 0)
                each_part = tl.arange(0, MOST)
                all_scores = tl.load(
                    part_scores + group * SIZE + each_part[:, None] * SIZE + heads[None, :],
                    mask=(each_part < active)[:, None],
                    other=float("-inf"),
                )
                highest = tl.max(all_scores, 0)
                weight = tl.zeros((SIZE,), tl.float32)
                total = tl.zeros((SIZE, WIDE), tl.float32)
                for other in tl.static_range(MOST):
                    theirs = line + other * SIZE
                    here = tl.where(heads < G, active, 0) > other
                    seen = tl.load(part_scores + theirs, mask=here, other=float("-inf"))
                    factor = tl.where(seen == float("-inf"), 0.0, tl.exp2(seen - highest))
                    weight += factor * tl.load(part_weights + theirs, mask=here, other=0.0)
                    total += factor[:, None] * tl.load(
                        part_values + theirs[:, None] * WIDE + d[None, :], mask=here[:, None] & inside, other=0.0
                    )
                weight = tl.where(heads < G, weight, 1.0)
                tl.store(out + place, (total / weight[:, None]).to(out.dtype.element_ty), mask=inside)
