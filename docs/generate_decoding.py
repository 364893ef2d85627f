"""Write the section of docs/performance.md that is made from the records in docs/results/gpu/decode.

After the benchmarks that it shows the commands of: `python docs/generate_decoding.py`. Without a record by context it
is empty; several sequences are told of once there is one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sections import console, table, wrapped, write_between

from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import for_people, significant
from codellm_eval.stats.repeats import Repeats

DOCS = Path(__file__).parent
PAGE = DOCS / "performance.md"
BEGIN = "<!-- from docs/results/gpu/decode, by docs/generate_decoding.py -->\n"
END = "<!-- end of decoding -->\n"

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
GROWN = """\
How a step grows: of one sequence by its context ([record](results/gpu/decode/grown-context/table.md); the window of
this model ends at 4096), and of several at a context of 128 by how many there are
([record](results/gpu/decode/grown-batch/table.md))."""
PICTURES = """\
![Milliseconds per token by the context](results/gpu/decode/grown-context/plots/decode.svg)

![Milliseconds per step by the sequences together](results/gpu/decode/grown-batch/plots/decode.svg)"""
QUALITY = """\
What it costs in quality, of the bundled model on the same kind of GPU, beside {}
([record](results/gpu/decode/quality/rows.jsonl)), ≈ what is not told apart from it: [what the columns
are](evaluation.md#quality-against-a-reference-row). A small model loses most by int4; of others nothing is measured."""
AGREEMENT = """\
Of greedy answers of {} tokens to HumanEval's {} prompts ([record](results/gpu/agreement.json)), those equal to
transformers-cuda's, the share of tokens before a first difference, and by how much the reference's own logits prefer
its token there. Without a scheme those are ties within what bfloat16 keeps, 8 bits of logits of some tens. Each row was
run twice, of the model loaded anew, and gave the same ids and log-probabilities to the last bit{}:"""
SEEN = """\
Seen on the H200 without a record: of the wall time of decoding the GPU was busy for 98.6 % with one sequence and 94 %
with eight, by torch's profiler. Prompts of 2 x 4096 tokens took 214 ms, 8 x 18000 with flash-attn 4347 ms."""


def page(records: Path = DOCS / "results" / "gpu" / "decode") -> str:
    """The part of the page between the marks, from the folders in `records`; empty without one by context."""
    found = {name: records / name for name in ("context", "batch") if (records / name / "rows.jsonl").exists()}
    folders = {name: Folder.read(path) for name, path in found.items()}
    if "context" not in folders:
        return ""
    return "\n\n".join(_parts(folders["context"], folders.get("batch"), records)) + "\n"


def _parts(folder: Folder, batch: Folder | None, records: Path) -> Iterator[str]:
    made = [folder] if batch is None else [folder, batch]
    best = max(record.bandwidth or 0.0 for each in made for record in each.records)
    spread = 100 * max(rate.spread for record in folder.records for rate in _rates(record).values())
    told = (SHARE if _limited(folder, best) else NO_SHARE).format(best / 1e12)
    if any((record.limit_share or 0) > 1 for record in folder.records):
        told += f" {COLD}"
    yield "## Decoding on a GPU"
    yield wrapped(DECODING.format(", ".join(folder.manifest["gpus"]), folder.plan.repeats, spread, told))
    yield _contexts(folder, best)
    yield from _aims(folder)
    yield "![Milliseconds per token of each row, by the context](results/gpu/decode/context/plots/context.svg)"
    if batch is not None:
        yield wrapped(BATCHES_TOGETHER.format(batch.plan.repeats))
        yield _batches(batch)
        yield "![Tokens per second of each row, by the sequences together](results/gpu/decode/batch/plots/batch.svg)"
    yield wrapped(OTHERS_INTRODUCTION)
    yield _others(folder, batch)
    yield console(*(each.manifest["command"] for each in made))
    yield wrapped(SEEN)
    if (grown := [records / name for name in ("grown-context", "grown-batch")])[0].exists():
        yield wrapped(GROWN)
        yield PICTURES
        yield console(*(json.loads((each / "manifest.json").read_text(encoding="utf-8"))["command"] for each in grown))
    if (records / "quality").exists():
        yield from _quality(Folder.read(records / "quality"))
    if (agreement := records.parent / "agreement.json").exists():
        yield from _agreement(json.loads(agreement.read_text(encoding="utf-8")))


def _quality(folder: Folder) -> Iterator[str]:
    yield wrapped(QUALITY.format(f"`{folder.records[0].row}`"))
    head = ["", "bits/byte", "difference", "solutions, bits/byte", "difference", "pass@1", "tasks", "KL, nats"]
    lines = []
    for record in folder.records:
        cells = for_people(record)
        bits, canonical, solved = (cells[key] for key in ("document", "canonical", "solved"))
        lines.append([f"`{record.row}`", *bits, *canonical[:2], *solved, cells["kl"][0]])
    yield table(head, lines)
    yield console(folder.manifest["command"])


def _agreement(made: Any) -> Iterator[str]:
    rows = dict(made["rows"])
    reference = rows.pop("transformers-cuda")
    odd = "" if reference["repeats"] else "; transformers-cuda with 32 together did not"
    yield wrapped(AGREEMENT.format(made["tokens"], reference["answers"], odd))
    head = ["", "equal answers", "tokens before a difference, %", "median gap, nats", "greatest gap"]
    lines = [
        [
            name, str(row["equal_answers"]), significant(100 * row["tokens_before_a_difference"] / row["tokens"]),
            significant(row["median_gap"]), significant(row["greatest_gap"]),
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    yield table(head, lines)
    yield console("python tests/benchmarks/agreement.py --tokens 128 --output docs/results/gpu/agreement.json")


def _contexts(folder: Folder, best: float) -> str:
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
    return table(head, lines)


def _aims(folder: Folder) -> Iterator[str]:
    """How near the rows came to what was aimed at; nothing where none of it was measured."""
    shares, aims = [], []
    for record in folder.records:
        rates = {each.context: rate.median for each, rate in _rates(record).items()}
        known = {context: aim for context, aim in AIMS.get(str(record.row), {}).items() if context in rates}
        shares += [rates[context] / aim for context, aim in known.items()]
        aims += [", ".join(map(str, known.values()))] if known else []
    if shares:
        reached = f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"
        yield f"The aims are, row by row, {'; '.join(aims)}; reached are {reached}."


def _batches(folder: Folder) -> str:
    sizes = sorted({each.batch_size for record in folder.records for each in _rates(record)})
    lines = []
    for record in folder.records:
        rates = {each.batch_size: rate for each, rate in _rates(record).items()}
        lines.append([f"`{record.row}`", *(significant(rates[size].median) if size in rates else "" for size in sizes)])
    return table(["", *map(str, sizes)], lines)


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
    return table(head, [[name, *(known.get(size, "") for size in sizes)] for name, known in lines.items()])


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


def main() -> None:
    """Write what is between the marks anew."""
    write_between(PAGE, BEGIN, END, page())


if __name__ == "__main__":
    main()
