"""Steps of several sequences: each captured once as a CUDA graph, and replayed with other tokens.

M rows of a step, P slots, H hidden size, N query heads, KV key-value heads, D the head_dim, F intermediate size, V
vocabulary. A row is a token of a slot at a position, so that a slot may have several rows in a step (drafted tokens),
or none. A graph is captured for a number of rows, 1, 2, 4 … 64; whose rows they are is read from the device.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import cast

import attrs
import torch
from torch import nn

from codellm.errors import InvalidValueError
from codellm.torch.cache import Cache
from codellm.torch.decoder import Decoder, Layer
from codellm.torch.linear import Linear
from codellm_gpu.cuda.attention import Parts, attend
from codellm_gpu.cuda.choice import Choose, fastest
from codellm_gpu.cuda.norm import add_norm
from codellm_gpu.cuda.place import HeadNorms, Rows, place
from codellm_gpu.cuda.product import Product
from codellm_gpu.cuda.sums import Sums

MOST = 64
"""Rows of a step."""


@attrs.frozen(eq=False)
class Buffers:
    """What the kernels of a step write, for `MOST` rows: the next kernel reads it, and the next step writes it again.

    Rows that a product of matrices takes beside those of the step are of an earlier one, or zero.
    """

    ids: torch.Tensor  # int64 [M]
    places: torch.Tensor  # int32 [2 * M]: slots and positions of a step of m rows in the first 2 m
    residual: torch.Tensor  # [M, H]
    normed: torch.Tensor  # [M, H]
    queries: torch.Tensor  # [M, N * D]
    attended: torch.Tensor  # [M, N * D]
    active: torch.Tensor  # [M, F]
    logits: torch.Tensor  # float32 [M, V]

    @classmethod
    def allocate(cls, decoder: Decoder) -> Buffers:
        """Buffers of `decoder`, on its device and in its type."""
        layer = _layers(decoder)[0]
        weight, lm_head = decoder.embedding.weight, cast("Linear", decoder.lm_head)
        hidden, wide = weight.shape[1], layer.attention.split[0]
        inner = cast("Linear", layer.feed_forward.down).in_features

        def rows(size: int) -> torch.Tensor:
            return weight.new_zeros(MOST, size)

        return cls(
            ids=torch.zeros(MOST, dtype=torch.long, device=weight.device),
            places=torch.zeros(2 * MOST, dtype=torch.int32, device=weight.device),
            residual=rows(hidden),
            normed=rows(hidden),
            queries=rows(wide),
            attended=rows(wide),
            active=rows(inner),
            logits=torch.zeros(MOST, lm_head.out_features, device=weight.device),
        )


class GraphSteps:
    """Steps of `decoder` on `cache`, whose logits are cut at `vocab_size`. What a step gives, the next one overwrites.

    On a CPU, where Triton interprets its kernels, nothing is captured.
    """

    def __init__(self, decoder: Decoder, cache: Cache, vocab_size: int, choose: Choose = fastest) -> None:
        self.decoder, self.cache, self.vocab_size = decoder, cache, vocab_size
        self.slots = len(cache.keys[0])
        self.device = cache.keys[0].device
        self._choose = choose
        self.buffers = Buffers.allocate(decoder)
        self.norms = [HeadNorms.of(layer.attention) for layer in _layers(decoder)]
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        self._steps: dict[int, _Step] = {}

    def __call__(self, ids: torch.Tensor, positions: Seq[int]) -> torch.Tensor:
        """Compute a token of each slot, ids [P] at positions [P] → logits after it, float32 [P, V].

        A slot at a negative position has no token: nothing is written for it and its logits say nothing. After the
        last slot that has one, the others take no time at all.

        Raises:
            InvalidValueError: there are more slots than a step has rows.
        """
        last = max((slot for slot, position in enumerate(positions) if position >= 0), default=-1)
        self._step(ids[: last + 1], range(last + 1), positions[: last + 1])
        return self.buffers.logits[: len(positions), : self.vocab_size]

    def rows(self, ids: torch.Tensor, slots: Seq[int], positions: Seq[int]) -> torch.Tensor:
        """Compute the tokens `ids` [M] of `slots` [M] at `positions` [M] → logits after each, float32 [M, V].

        The tokens of a slot lie at consecutive positions, and each sees those before it. Of a sliding window the ring
        has to hold as many cells more as a slot has tokens here beside its first.

        Raises:
            InvalidValueError: there are more tokens than a step has rows.
        """
        self._step(ids, slots, positions)
        return self.buffers.logits[: len(positions), : self.vocab_size]

    def capture(self, count: int) -> None:
        """Be ready for steps of `count` rows: choose the ways of the products and capture the graph.

        Raises:
            InvalidValueError: a step has fewer rows.
        """
        rows = _rows_of(count)
        if rows not in self._steps:
            self._steps[rows] = step = _Step(self, rows, self._choose)
            if self.device.type == "cuda":
                self._graphs[rows] = self._captured(step)

    def _captured(self, step: _Step) -> torch.cuda.CUDAGraph:
        self.buffers.places.fill_(-1)  # no row has a token: the cache stays as it is
        current = torch.cuda.current_stream(self.device)
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            step.compute()  # kernels are compiled and libraries set up before
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            step.compute()
        return graph

    def _step(self, ids: torch.Tensor, slots: Seq[int], positions: Seq[int]) -> None:
        count = len(positions)
        if not count:
            return
        rows = _rows_of(count)
        self.capture(count)
        rest = rows - count
        places = torch.tensor(
            [*slots, *[0] * rest, *positions, *[-1] * rest], dtype=torch.int32, pin_memory=self.device.type == "cuda"
        )
        self.buffers.places[: 2 * rows].copy_(places, non_blocking=True)
        self.buffers.ids[:count].copy_(ids)
        if self.device.type == "cuda":
            self._graphs[rows].replay()
        else:
            self._steps[rows].compute()


class _Step:
    """The kernels of a step of `count` rows, in their order."""

    def __init__(self, steps: GraphSteps, count: int, choose: Choose) -> None:
        self.decoder, self.cache, self.buffers, self.norms = steps.decoder, steps.cache, steps.buffers, steps.norms
        self.count = count
        self.rows = Rows(self.buffers.places[: 2 * count].view(2, count))
        self.layers = layers = _layers(steps.decoder)
        heads, (_, _, kv_heads, head_dim) = layers[0].attention.split[0], steps.cache.keys[0].shape
        programs = 2 * _multiprocessors(steps.device)
        self.parts = Parts.allocate(count, heads // head_dim, kv_heads, head_dim, programs, steps.device)

        def chosen(projections: Seq[nn.Module], activation: str = "", *, whole: bool = False) -> Product:
            product = Product(projections, count, activation, whole)
            return attrs.evolve(product, tiles=choose(product)) if product.plain else product

        self.qkv = chosen([layer.attention.qkv for layer in layers])
        self.o_proj = chosen([layer.attention.o_proj for layer in layers])
        self.up = chosen(
            [layer.feed_forward.up for layer in layers], "gate" if layers[0].feed_forward.gated else "gelu"
        )
        self.down = chosen([layer.feed_forward.down for layer in layers])
        self.lm_head = chosen([steps.decoder.lm_head], whole=True)

    def compute(self) -> None:
        """The whole step, from the buffers' ids and places to their logits."""
        buffers, count = self.buffers, self.count
        torch.index_select(self.decoder.embedding.weight, 0, buffers.ids[:count], out=buffers.residual[:count])
        sums: Sums | None = None
        for number, layer in enumerate(self.layers):
            add_norm(buffers.residual, sums, layer.attention_norm, buffers.normed, count)
            sums = self._attention(number)
            add_norm(buffers.residual, sums, layer.feed_forward_norm, buffers.normed, count)
            self.up.activated(number, buffers.normed, buffers.active)
            sums = self.down.sums(number, buffers.active)
        add_norm(buffers.residual, sums, self.decoder.norm, buffers.normed, count)
        self.lm_head.write(0, buffers.normed, buffers.logits)

    def _attention(self, number: int) -> Sums:
        """Attention of the layer `number`, and its output's projection."""
        buffers, rotary = self.buffers, (self.decoder.cos, self.decoder.sin)
        keys, values = self.cache.keys[number], self.cache.values[number]
        qkv = self.qkv.sums(number, buffers.normed)
        place(qkv, self.rows, rotary, self.norms[number], buffers.queries, keys, values)
        attend(buffers.queries, keys, values, self.rows, self.cache.window, self.parts, buffers.attended)
        return self.o_proj.sums(number, buffers.attended)


def _layers(decoder: Decoder) -> list[Layer]:
    return [cast("Layer", layer) for layer in decoder.layers]


def _rows_of(count: int) -> int:
    """Rows of the graph that computes `count`."""
    if count > MOST:
        raise InvalidValueError(f"a step of torch-cuda has at most {MOST} rows, not {count}; take a smaller batch_size")
    return 1 << (count - 1).bit_length()


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 16
