"""Write the section of docs/performance.md that is made from the records in docs/results/gpu.

After the grids and the benchmark that it shows the commands of: `python docs/generate_gpu.py`. Without a record of each
grid it is empty; quality is told once there is one of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sections import console, table, wrapped, write_between

from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import for_people, significant
from codellm_eval.grid.cell import Cell
from codellm_eval.grid.figures import DECODE, PEAK, PREFILL, TOKEN, Figure, SpeedUp
from codellm_eval.grid.folder import CELLS, Grid
from codellm_eval.grid.plan import Size

DOCS = Path(__file__).parent
PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- from docs/results/gpu, by docs/generate_gpu.py -->\n", "<!-- end of the GPU -->\n"
GRIDS = ("attention", "precision", "seed")
QUALITY = "quality"

STUDY: dict[str, dict[tuple[int, int], float | None]] = {
    "bf16": {
        (2, 4096): 11.05, (2, 8192): 22.75, (2, 16384): 49.04, (2, 18000): 55.20,
        (4, 4096): 25.71, (4, 8192): 66.96, (4, 16384): None, (4, 18000): None,
        (8, 4096): 53.32, (8, 8192): None, (8, 16384): None, (8, 18000): None,
    },
    "bf16 with FlashAttention-2": {
        (2, 4096): 9.87, (2, 8192): 19.95, (2, 16384): 43.80, (2, 18000): 45.26,
        (4, 4096): 19.64, (4, 8192): 41.28, (4, 16384): None, (4, 18000): None,
        (8, 4096): 40.06, (8, 8192): None, (8, 16384): None, (8, 18000): None,
    },
    "fp32": {(2, 4096): 29.02, (4, 4096): 58.02, (8, 4096): None},
    "bnb-int8": {(2, 4096): 13.28, (4, 4096): 27.88, (8, 4096): 57.96},
    "bnb-nf4, float16": {(2, 4096): 13.31, (4, 4096): 28.24, (8, 4096): 55.64},
    "bnb-nf4, float32": {(2, 4096): 101.56, (4, 4096): 202.8, (8, 4096): 401.16},
}  # fmt: skip
"""Seconds of a minibatch; None where the memory did not suffice. github.com/0-5-blood-prince/code-llm,
gpu-inference/README.md at 14647d2b1859da52859310fa98787c53333212f6."""

STUDY_QUALITY = {
    "none": (1.107, 0.359),
    "bnb-int8": (1.704, 0.335),
    "bnb-nf4:float16": (1.714, 0.329),
}
"""Perplexity and pass@1 that it told of bf16, "fp8" and nf4, by scheme and compute type."""

QUALITY_INTRODUCTION = """\
What the schemes cost in quality, of the bundled model ([record](results/gpu/quality/rows.jsonl)), each beside {}: [what
the columns are](evaluation.md#quality-against-a-reference-row), ≈ what is not told apart from it. The study's
perplexity and pass@1 are of StarCoder2-7B, and no figure of ours."""
ATTENTION = {
    "eager": "transformers-cuda::attn_implementation=eager",
    "sdpa": "transformers-cuda::attn_implementation=sdpa",
    "FlashAttention-2": "transformers-cuda::attn_implementation=flash_attention_2",
}
PRECISION = {
    "bf16 with FlashAttention-2": ATTENTION["FlashAttention-2"],
    "bf16": ATTENTION["sdpa"],
    "fp32": "transformers-cuda::attn_implementation=sdpa,dtype=float32",
    "bnb-int8": "transformers-cuda:bnb-int8:attn_implementation=flash_attention_2",
    "bnb-nf4, float16": "transformers-cuda:bnb-nf4:attn_implementation=flash_attention_2,compute_dtype=float16",
    "bnb-nf4, bfloat16": "transformers-cuda:bnb-nf4:attn_implementation=flash_attention_2,compute_dtype=bfloat16",
    "bnb-nf4, float32": "transformers-cuda:bnb-nf4:attn_implementation=flash_attention_2,compute_dtype=float32",
}
"""Rows of the grids, by what the tables call them."""
BATCHES, SEED_CONTEXTS = (2, 4, 8), (4096, 8192)

INTRODUCTION = """\
The study before this project ([code-llm](https://github.com/0-5-blood-prince/code-llm), gpu-inference) told seconds of
StarCoder2-7B on one A100 of 40 GB, for a minibatch of random ids and a number of new tokens that it does not name, each
token by a pass over everything before it. Its seconds stand beside no figure of ours; ratios do. They are taken of its
seconds, since its own table of them says otherwise in three places. Ours are of {}, random weights of the same shape,
in bf16 where nothing else is said{}, medians of {} ([by attention](results/gpu/attention/cells.jsonl), [by
precision](results/gpu/precision/cells.jsonl), [by the study's protocol](results/gpu/seed/cells.jsonl)). [What is
measured](evaluation.md#batch-by-context). What is empty was not measured."""


def page(records: Path = DOCS / "results" / "gpu") -> str:
    """The part of the page between the marks, from the grids in `records`; empty where one of them is not there."""
    if not all((records / name / CELLS).exists() for name in GRIDS):
        return ""
    parts = list(_parts(*(Grid.read(records / name) for name in GRIDS)))
    if (records / QUALITY / "rows.jsonl").exists():
        parts += _quality_parts(Folder.read(records / QUALITY))
    return "\n\n".join(parts) + "\n"


def _parts(attention: Grid, precision: Grid, seed: Grid) -> Iterator[str]:
    gpus, limit = ", ".join(attention.manifest["gpus"]), _limit(attention)
    yield "## The study's tables on a GPU"
    yield wrapped(INTRODUCTION.format(gpus, limit, attention.plan.repeats))
    yield console(*(grid.manifest["command"] for grid in (attention, precision, seed)))
    yield "Attention: the study's seconds, and milliseconds of prefill here."
    yield _attention(attention)
    yield "![Prefill by context and batch size](results/gpu/attention/plots/prefill.svg)"
    yield (
        "Milliseconds of a decoded token of each sequence, and the peak of the GPU's memory in GiB. That of\n"
        "FlashAttention-2 hardly grows with batch and context: it is the host's time in transformers' forward pass,\n"
        "several times what reading the weights takes the GPU."
    )
    yield _decode_and_peak(attention)
    yield "![Peak memory by context and batch size](results/gpu/attention/plots/peak.svg)"
    yield "Precision, prompts of 4096 tokens, by batch size: the study's seconds, and milliseconds here."
    yield _precision(precision)
    yield (
        "By the study's protocol, batch 2, by context: its seconds, and milliseconds of one token of each sequence "
        f"here,\nmedian of {seed.plan.repeats} runs of {seed.plan.new_tokens} tokens."
    )
    yield _seed(seed)


def _quality_parts(folder: Folder) -> Iterator[str]:
    reference = folder.records[0].row
    yield wrapped(QUALITY_INTRODUCTION.format(f"`{reference}`"))
    yield console(folder.manifest["command"])
    head = [
        "", "bits/byte", "difference", "perplexity", "ln p of the solutions", "difference, bits/byte", "pass@1",
        "tasks", "study: perplexity", "study: pass@1",
    ]  # fmt: skip
    yield table(head, [_quality_line(record) for record in folder.records])


def _quality_line(record: Record) -> list[str]:
    """A row's quality as the benchmark prints it, and the study's perplexity and pass@1."""
    cells = for_people(record)
    bits, canonical, solved = (cells[key] for key in ("document", "canonical", "solved"))
    compute = record.row.options.get("compute_dtype")
    scheme = record.row.scheme or "none"
    theirs = STUDY_QUALITY.get(f"{scheme}:{compute}" if compute else scheme)
    return [
        f"`{record.row}`", *bits, cells["perplexity"][0], cells["log_probability"][0], canonical[1], *solved,
        *([f"{value:.3f}" for value in theirs] if theirs else ["", ""]),
    ]  # fmt: skip


def _attention(grid: Grid) -> str:
    without, with_flash = STUDY["bf16"], STUDY["bf16 with FlashAttention-2"]
    head = ["batch x context", "study without", "with", "ratio", *ATTENTION, "sdpa / FA-2", "eager / FA-2"]
    lines = []
    for place in sorted(without):
        ours = [_cell(grid, row, place) for row in ATTENTION.values()]
        lines.append(
            [
                "{} x {}".format(*place),
                _seconds(without[place]),
                _seconds(with_flash[place]),
                _ratio(without[place], with_flash[place]),
                *(_shown(cell, PREFILL) for cell in ours),
                *(_faster(other, ours[2]) for other in (ours[1], ours[0])),
            ]
        )
    return table(head, lines)


def _decode_and_peak(grid: Grid) -> str:
    head = ["batch x context", *(f"{name}, {what}" for what in ("ms", "GiB") for name in ATTENTION)]
    lines = []
    for place in sorted(STUDY["bf16"]):
        ours = [_cell(grid, row, place) for row in ATTENTION.values()]
        lines.append(["{} x {}".format(*place), *(_shown(cell, each) for each in (DECODE, PEAK) for cell in ours)])
    return table(head, lines)


def _precision(grid: Grid) -> str:
    head = ["", *(f"{what} {batch}" for what in ("study, s:", "prefill, ms:", "decode, ms:") for batch in BATCHES)]
    lines = []
    for name, row in PRECISION.items():
        theirs = [_seconds(STUDY[name][batch, 4096]) if name in STUDY else "" for batch in BATCHES]
        ours = [_cell(grid, row, (batch, 4096)) for batch in BATCHES]
        lines.append([name, *theirs, *(_shown(cell, figure) for figure in (PREFILL, DECODE) for cell in ours)])
    return table(head, lines)


def _seed(grid: Grid) -> str:
    names = {"bf16, eager": ATTENTION["eager"], **PRECISION}
    head = ["", "study, s: 4096", "8192", "here, ms: 4096", "8192"]
    lines = []
    for name, row in names.items():
        known, places = STUDY.get(name, {}), [(2, context) for context in SEED_CONTEXTS]
        theirs = [_seconds(known[place]) if place in known else "" for place in places]
        lines.append([name, *theirs, *(_shown(_cell(grid, row, place), TOKEN) for place in places)])
    return table(head, lines)


def _cell(grid: Grid, row: str, place: tuple[int, int]) -> Cell | None:
    return grid.cells.get((Row.parse(row), Size(*place)))


def _shown(cell: Cell | None, figure: Figure) -> str:
    if cell is None:
        return ""
    repeats = figure.shown(cell)
    if repeats is None:
        return "out of memory" if cell.out_of_memory is not None else "failed"
    return significant(repeats.median)


def _faster(slow: Cell | None, fast: Cell | None) -> str:
    found = SpeedUp.of(PREFILL, slow, fast) if fast is not None else None
    return "" if found is None else f"{found.value:.2f}" + (" (noise)" if found.noise else "")


def _seconds(value: float | None) -> str:
    return "out of memory" if value is None else f"{value:.2f}"


def _ratio(slow: float | None, fast: float | None) -> str:
    return f"{slow / fast:.2f}" if slow and fast else ""


def _limit(grid: Grid) -> str:
    """What of the memory the cells were held to."""
    gib = grid.manifest["settings"].get("load", {}).get("-o memory_gib")
    return f", each process within {gib} GiB of memory" if gib else ""


def main() -> None:
    """Write what is between the marks anew."""
    write_between(PAGE, BEGIN, END, page())


if __name__ == "__main__":
    main()
