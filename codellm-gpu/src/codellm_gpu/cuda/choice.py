"""Which way of a product is captured: the tiles that were the fastest here, or torch's own product.

Tried once for a GPU, a shape and a number of rows, and remembered, so that a model computes the same in every run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as Seq

import attrs
import torch
import triton

from codellm.system.cache import Memo
from codellm_gpu.cuda.product import Product
from codellm_gpu.cuda.skinny import Tiles

TILES = (
    Tiles(64, 128, 4, 4, swapped=False),
    Tiles(32, 256, 4, 4, swapped=False),
    Tiles(128, 64, 4, 4, swapped=False),
    Tiles(64, 64, 4, 6, swapped=True),
    Tiles(64, 128, 4, 4, swapped=True),
    Tiles(64, 256, 4, 3, swapped=True),
    Tiles(128, 64, 4, 4, swapped=True),
    Tiles(128, 128, 8, 3, swapped=True),
    Tiles(128, 128, 4, 4, swapped=True),
)
PARTS = (1, 2, 3, 4, 6, 8)
PROGRAMS = (96, 1200)
"""Programs of a product that is worth a try: about one and nine a multiprocessor of the largest GPUs."""
COLD = 400_000_000
"""Bytes of weights that are gone through before the first are read again: more than any cache holds."""
GAIN = 0.98
"""Of torch's time, below which tiles are taken: a tie goes to what is known best."""
PLAIN = Tiles(32, 32, 4, 2, swapped=False, parts=2)
"""Where nothing is timed: on a CPU."""

Choose = Callable[[Product], Tiles | None]
"""The tiles of a product whose weights are plain; None for torch's own product."""


def fastest(product: Product) -> Tiles | None:
    """The way that was found to be the fastest here; it is tried out where none is remembered."""
    if not product.weight.is_cuda:
        return attrs.evolve(PLAIN, parts=1) if product.activation or product.whole else PLAIN
    memo, key = Memo("products.json"), _key(product)
    known = memo.read().get(key)
    if known is None:
        tiles = _tried(product)
        memo.keep({key: "torch" if tiles is None else str(tiles)})
        return tiles
    return None if known == "torch" else Tiles.parse(known)


def _key(product: Product) -> str:
    """What the fastest way depends on."""
    weight = product.weight
    versions = f"{torch.cuda.get_device_name(weight.device)} {torch.__version__} {triton.__version__}"
    return f"{versions} {weight.dtype} {tuple(weight.shape)} {product.rows} {product.activation} {product.whole}"


def _tried(product: Product) -> Tiles | None:
    times: dict[Tiles | None, float] = {None: GAIN * _time(product)}
    for tiles in candidates(product):
        try:
            times[tiles] = _time(attrs.evolve(product, tiles=tiles))
        except triton.runtime.errors.OutOfResources:  # a smaller GPU's shared memory
            continue
    torch.cuda.empty_cache()  # of what the graphs held
    return min(times, key=lambda tiles: times[tiles])


def candidates(product: Product) -> list[Tiles]:
    """The tiles that are worth a try: of too few programs some of the GPU idles, of too many the sum costs."""
    outputs, inputs = product.weight.shape
    outputs //= 2 if product.activation == "gate" else 1
    found = []
    for tiles in TILES:
        columns = triton.cdiv(outputs, tiles.outputs)
        counts = (1,) if product.activation or product.whole else PARTS
        fit = [parts for parts in counts if PROGRAMS[0] <= columns * parts <= PROGRAMS[1]]
        found += [attrs.evolve(tiles, parts=parts) for parts in fit or (1,) if parts * tiles.inputs <= inputs]
    return found


def _time(product: Product, rounds: int = 4) -> float:
    """Milliseconds of the product over layers in a CUDA graph, where no host is in its way: the best of some rounds."""
    weight = product.weight
    layers = min(len(product.layers), -(-COLD // weight.nbytes))
    x = torch.ones(product.padded, weight.shape[1], dtype=weight.dtype, device=weight.device)
    kind = torch.float32 if product.whole else weight.dtype
    out = torch.empty(product.padded, weight.shape[0], dtype=kind, device=weight.device)
    active = out.view(-1)[: len(out) * weight.shape[0] // 2].view(len(out), -1) if product.activation == "gate" else out

    def compute(number: int) -> None:
        if product.activation:
            product.activated(number, x, active)
        elif product.whole:
            product.write(number, x, out)
        else:
            product.sums(number, x)

    return timed([functools.partial(compute, number) for number in range(layers)], rounds)


def timed(runs: Seq[Callable[[], None]], rounds: int) -> float:
    """Milliseconds that all `runs` take in a CUDA graph: the best of some rounds."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        runs[0]()  # compiled, and its libraries set up
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        for run in runs:
            run()
        graph.capture_end()
    best = float("inf")
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end))
    return best
