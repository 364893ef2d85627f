"""Write the sections of docs/performance.md that are made from the records in docs/results/gpu.

After the benchmarks and grids that they show the commands of: `python docs/generate_gpu.py`. Parts that have no record
are left out; the study's tables have one each.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import for_people, significant
from codellm_eval.grid.cell import Cell
from codellm_eval.grid.figures import DECODE, PEAK, PREFILL, TOKEN, Figure, SpeedUp
from codellm_eval.grid.folder import CELLS, Grid
from codellm_eval.grid.plan import Size
from codellm_eval.stats.repeats import Repeats

DOCS = Path(__file__).parent
PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- from docs/results/gpu, by docs/generate_gpu.py -->\n", "<!-- end of the GPU -->\n"
GRIDS = ("attention", "precision", "seed")
QUALITY = "quality"
CONTEXT, BATCH = "decode/context", "decode/batch"

OTHERS: dict[str, dict[int, str]] = {
    "the whole model by torch.compile, CUDA graphs": {1: "204", 8: "1512", 32: "6069"},
    "vLLM 0.22.1 as a user starts it": {1: "198", 8: "1639", 32: "6492"},
    "transformers-cuda, FlashAttention-2": {1: "57"},
    "transformers-cuda, sdpa": {1: "34"},
}
"""Tokens per second in bf16 by the sequences together, seen on another machine of the same kind on another day."""
DECODING = """\
Tokens per second of one sequence by [torch-cuda](gpu.md), by the tokens of context before it
([record](results/gpu/decode/context/rows.jsonl)): StarCoder2-7B, random weights, on {}, medians of {}, from which no
repeat is further than {:.1f} %. *Read*: the bytes of weights that decoding read per second at the least context. {}"""
AIMS = {
    "torch-cuda": {128: 285, 1024: 280, 3800: 270},
    "torch-cuda:int8": {128: 520, 1024: 505, 3800: 480},
    "torch-cuda:int4": {128: 750, 1024: 720, 3800: 670},
}
"""Tokens per second of one sequence that were aimed at on an H200, by context."""
SHARE = """\
*Of the limit*: that as a share of what a plain read reached in the best of the measurements beside the rows, {:.2f}
TB/s."""
NO_SHARE = """\
A share of what a plain read reaches is not told: the one beside these rows reached {:.2f} TB/s, and the same GPU was
seen to read 4.4 (not recorded)."""
COLD = """\
In the record's own table the limit is above 100 %: the read beside it was timed on a GPU whose clocks had not risen
yet."""
BATCHES_TOGETHER = """\
Tokens per second of all sequences together, by how many there are ([record](results/gpu/decode/batch/rows.jsonl)),
medians of {}:"""
OTHERS_INTRODUCTION = """\
Beside others in bf16. **Only the first line is of this run**: what is below it was seen on another machine of the same
kind, on another day, and has no record here. vLLM's rate of one sequence is that at contexts of 128 and 1024, and 196
at 3800:"""
SEEN = """\
Seen on the H200 without a record: of the wall time of decoding the GPU was busy for 98.6 % with one sequence and 94 %
with eight, by torch's profiler. Prompts of 2 x 4096 tokens took 214 ms, 8 x 18000 with flash-attn 4347 ms."""

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
    """The part of the page between the marks, from the folders in `records`; empty where there are none."""
    folders = {
        name: Folder.read(records / name)
        for name in (CONTEXT, BATCH, QUALITY)
        if (records / name / "rows.jsonl").exists()
    }
    parts = list(_decoding_parts(folders)) if CONTEXT in folders else []
    if all((records / name / CELLS).exists() for name in GRIDS):
        parts += _parts(*(Grid.read(records / name) for name in GRIDS))
        parts += _quality_parts(folders[QUALITY]) if QUALITY in folders else []
    return "\n\n".join(parts) + "\n" if parts else ""


def _decoding_parts(folders: Mapping[str, Folder]) -> Iterator[str]:
    folder, batch = folders[CONTEXT], folders.get(BATCH)
    made = [folder] if batch is None else [folder, batch]
    best = max(record.bandwidth or 0.0 for each in made for record in each.records)
    spread = 100 * max(rate.spread for record in folder.records for rate in _rates(record).values())
    told = (SHARE if _limited(folder, best) else NO_SHARE).format(best / 1e12)
    if any((record.limit_share or 0) > 1 for record in folder.records):
        told += f" {COLD}"
    yield "## Decoding on a GPU"
    yield _wrapped(DECODING.format(", ".join(folder.manifest["gpus"]), folder.plan.repeats, spread, told))
    yield decoding_table(folder, best)
    yield from _aims(folder)
    yield "![Milliseconds per token of each row, by the context](results/gpu/decode/context/plots/context.svg)"
    if batch is not None:
        yield _wrapped(BATCHES_TOGETHER.format(batch.plan.repeats))
        yield _batches(batch)
        yield "![Tokens per second of each row, by the sequences together](results/gpu/decode/batch/plots/batch.svg)"
    yield _wrapped(OTHERS_INTRODUCTION)
    yield _others(folder, batch)
    yield "```console\n" + "\n".join(str(each.manifest["command"]) for each in made) + "\n```"
    yield _wrapped(SEEN)


def decoding_table(folder: Folder, best: float) -> str:
    """Rates of one sequence by context, with what they read per second, and the share of `best` where none is above."""
    contexts = sorted({each.context for record in folder.records for each in _rates(record)})
    limited = _limited(folder, best)
    head = ["", "weights, GB", *(f"tok/s at {context}" for context in contexts), "read, TB/s"]
    head += [*(["of the limit, %"] if limited else []), "peak, GB", "J/token"]
    lines = []
    for record in folder.records:
        rates = {each.context: rate for each, rate in _rates(record).items()}
        shown = [significant(rates[context].median) if context in rates else "" for context in contexts]
        read = _read(record)
        share = [f"{100 * read / best:.0f}"] if limited else []
        joules = record.joules_per_token
        lines.append([
            f"`{record.row}`", significant(_weights(record) / 1e9), *shown, f"{read / 1e12:.2f}", *share,
            significant((record.device_peak or 0) / 1e9), significant(joules.median) if joules else "",
        ])  # fmt: skip
    return _table(head, lines)


def _aims(folder: Folder) -> Iterator[str]:
    """How near the rows came to what was aimed at; nothing where none of it was measured."""
    shares, aims = [], []
    for record in folder.records:
        rates = {each.context: rate.median for each, rate in _rates(record).items()}
        known = {context: aim for context, aim in AIMS.get(str(record.row), {}).items() if context in rates}
        shares += [rates[context] / aim for context, aim in known.items()]
        aims += [", ".join(map(str, known.values()))] if known else []
    if shares:
        yield f"The aims are {'; '.join(aims)}: reached are {100 * min(shares):.0f} to {100 * max(shares):.0f} %."


def _batches(folder: Folder) -> str:
    sizes = sorted({each.batch_size for record in folder.records for each in _rates(record)})
    lines = []
    for record in folder.records:
        rates = {each.batch_size: rate for each, rate in _rates(record).items()}
        lines.append([f"`{record.row}`", *(significant(rates[size].median) if size in rates else "" for size in sizes)])
    return _table(["", *map(str, sizes)], lines)


def _others(folder: Folder, batch: Folder | None) -> str:
    """The first row's rates at the least context above those of others; several together where they were measured."""
    first = _rates(folder.records[0])
    ours = {1: significant(first[min(first, key=lambda each: each.context)].median)}
    if batch is not None:
        rates = {each.batch_size: rate for each, rate in _rates(batch.records[0]).items()}
        ours |= {size: significant(rate.median) for size, rate in rates.items() if size in (8, 32)}
    sizes = sorted(ours)
    head = ["", *("one sequence" if size == 1 else f"{size} together" for size in sizes)]
    lines = {f"`{folder.records[0].row}`": ours, **OTHERS}
    return _table(head, [[name, *(known.get(size, "") for size in sizes)] for name, known in lines.items()])


def _rates(record: Record) -> dict[Workload, Repeats]:
    """The rates of decoding by what was decoded."""
    return {point.workload: point.rate for point in record.points if point.workload.kind == "tg"}


def _weights(record: Record) -> int:
    assert record.info is not None
    return record.info.weight_bytes


def _read(record: Record) -> float:
    """Bytes of weights that decoding read per second at the least context."""
    rates = _rates(record)
    return _weights(record) * rates[min(rates, key=lambda each: each.context)].median


def _limited(folder: Folder, best: float) -> bool:
    """Whether no row read faster than the plain read beside them, so that it is a limit."""
    return all(_read(record) <= best for record in folder.records)


def _parts(attention: Grid, precision: Grid, seed: Grid) -> Iterator[str]:
    gpus, limit = ", ".join(attention.manifest["gpus"]), _limit(attention)
    yield "## The study's tables on a GPU"
    yield _wrapped(INTRODUCTION.format(gpus, limit, attention.plan.repeats))
    yield "```console\n" + "\n".join(str(grid.manifest["command"]) for grid in (attention, precision, seed)) + "\n```"
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
    yield _wrapped(QUALITY_INTRODUCTION.format(f"`{reference}`"))
    yield f"```console\n{folder.manifest['command']}\n```"
    head = [
        "", "bits/byte", "difference", "perplexity", "ln p of the solutions", "difference, bits/byte", "pass@1",
        "tasks", "study: perplexity", "study: pass@1",
    ]  # fmt: skip
    yield _table(head, [_quality_line(record) for record in folder.records])


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
    return _table(head, lines)


def _decode_and_peak(grid: Grid) -> str:
    head = ["batch x context", *(f"{name}, {what}" for what in ("ms", "GiB") for name in ATTENTION)]
    lines = []
    for place in sorted(STUDY["bf16"]):
        ours = [_cell(grid, row, place) for row in ATTENTION.values()]
        lines.append(["{} x {}".format(*place), *(_shown(cell, each) for each in (DECODE, PEAK) for cell in ours)])
    return _table(head, lines)


def _precision(grid: Grid) -> str:
    head = ["", *(f"{what} {batch}" for what in ("study, s:", "prefill, ms:", "decode, ms:") for batch in BATCHES)]
    lines = []
    for name, row in PRECISION.items():
        theirs = [_seconds(STUDY[name][batch, 4096]) if name in STUDY else "" for batch in BATCHES]
        ours = [_cell(grid, row, (batch, 4096)) for batch in BATCHES]
        lines.append([name, *theirs, *(_shown(cell, figure) for figure in (PREFILL, DECODE) for cell in ours)])
    return _table(head, lines)


def _seed(grid: Grid) -> str:
    names = {"bf16, eager": ATTENTION["eager"], **PRECISION}
    head = ["", "study, s: 4096", "8192", "here, ms: 4096", "8192"]
    lines = []
    for name, row in names.items():
        known, places = STUDY.get(name, {}), [(2, context) for context in SEED_CONTEXTS]
        theirs = [_seconds(known[place]) if place in known else "" for place in places]
        lines.append([name, *theirs, *(_shown(_cell(grid, row, place), TOKEN) for place in places)])
    return _table(head, lines)


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


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Write what is between the marks anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{page()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
