"""What stands in a grid's titles and under its tables: which model, why cells are empty, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator

from codellm_eval.grid.figures import PEAK, Figure
from codellm_eval.grid.folder import Grid

CACHED = (
    "cached: with the cache of keys and values. Prefill: from the start until each of the batch's prompts, all "
    "different and random, has its first token, nothing generated beside it. Decode: of other prompts, from when all "
    "have their first token; each step gives every sequence a token. Sequences that have theirs early generate "
    "meanwhile, a token for each piece in which the others' prompts are computed, and are longer by as many. One "
    "warm-up."
)
SEED = (
    "seed: without a cache between tokens: each new token by a pass over the prompt and all tokens before it, as the "
    "study before this project measured. No use of a model is like that; it is for the comparison with the study "
    "alone. One warm-up pass."
)


def notes(grid: Grid) -> list[str]:
    """The notes, what went wrong first."""
    return [*_gaps(grid), *_protocol(grid)]


def heading(grid: Grid) -> str:
    """The model; random weights are said in every table."""
    return f"{grid.model}, random weights" if grid.dummy else grid.model


def name_of(figure: Figure, grid: Grid) -> str:
    """The figure's name; of the peak, of which memory it is."""
    if figure is not PEAK:
        return figure.title
    on_device = [bool(cell.device_peak) for cell in grid.cells.values() if cell.peak]
    if on_device and all(on_device):
        return f"{figure.title} of the device"
    return figure.title if any(on_device) else f"{figure.title} of the process"


def _gaps(grid: Grid) -> Iterator[str]:
    """Reasons, each once, with the cells that it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in grid.cells.values():
        for kind, reason in (("out of memory", cell.out_of_memory), ("failed", cell.error)):
            if reason is not None:
                reasons.setdefault((kind, reason), []).append(f"{cell.row} {cell.size}")
    for (kind, reason), cells in reasons.items():
        yield f"{kind} ({', '.join(cells)}): {reason}"


def _protocol(grid: Grid) -> Iterator[str]:
    yield CACHED if grid.plan.protocol == "cached" else SEED
    yield (
        "Figures are medians, with the least and the greatest repeat. Each cell is a load of its own, with places just "
        "long enough; peak: the most that was held from the load to the end, of the device's memory where there is "
        "one, else of the process's; GiB: 2^30 bytes."
    )
    if grid.reference is not None and len(grid.rows) > 1:
        yield (
            f"Speed-ups: the median of {grid.reference} over the row's; the range is that of the two repeats that are "
            "furthest apart either way. noise: the repeats of both overlap, so there may be no difference; once: "
            "measured once."
        )
    if grid.dummy:
        yield "Random weights have a speed and no quality."
