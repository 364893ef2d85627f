"""Write the tables of docs/performance.md that are made from the records in docs/results/cpu.

After `nox -s bench-cpu`: `python docs/generate_performance.py`. Parts that have no record are left out.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import significant

DOCS = Path(__file__).parent
PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- from docs/results/cpu, by docs/generate_performance.py -->\n", "<!-- end -->\n"

STUDY = {
    "torch-cpu::dtype=float32": 257.0,
    "torch-cpu::dtype=float32,mode=jit": 241.0,
    "llama-cpp:f16": 54.0,
    "llama-cpp:q4_k_m": 48.9,
    "llama-cpp:q4_k_s": 26.2,
}
"""Seconds that the study behind this project told for StarCoder2-7B, one prompt of HumanEval and 200 new tokens."""
NAMES = {"torch-cpu": "torch", "transformers-cpu": "transformers", "llama-cpp": "llama.cpp"}
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}

INTRODUCTION = """## The study's request on a CPU

The study behind this project gave StarCoder2-7B one prompt of HumanEval and had 200 tokens of it, in seconds from start
to end: torch 257, TorchScript 241, llama.cpp f16 54, q4_k_m 48.9, q4_k_s 26.2. It names neither the prompt nor the
processor. So HumanEval/0 is taken here, and only ratios to torch can be compared, whose type in the study is taken to
have been fp32. Dummy weights; the rows one after the other, each in a process of its own. *Of the limit*: the bytes of
weights that decoding read per second, as a share of what a plain read achieved, {bandwidth:.1f} GB/s in the best of the
measurements beside the rows. One command makes the tables here and of the growth below:

```console
nox -s bench-cpu
python tests/benchmarks/cpu.py --output docs/results/cpu
```
"""


def page(records: Path = DOCS / "results" / "cpu") -> str:
    """The part of the page between the marks, from the folders in `records`; empty where the first is not there."""
    parts: list[tuple[str, Callable[[Folder], Iterator[str]]]] = [
        ("3b", _three), ("7b", _seven), ("context", _context), ("batch", _batch), ("threads", _threads),
    ]  # fmt: skip
    made = {name: Folder.read(records / name) for name, _ in parts if (records / name / "rows.jsonl").exists()}
    if "3b" not in made:
        return ""
    return "\n".join(block for name, write in parts if name in made for block in write(made[name]))


def _three(folder: Folder) -> Iterator[str]:
    yield INTRODUCTION.format(bandwidth=_bandwidth(folder) / 1e9)
    yield f"StarCoder2-3B ([record](results/cpu/3b/rows.jsonl)), {folder.plan.repeated()}:\n"
    yield _requests(folder, "torch-cpu::dtype=float32")


def _seven(folder: Folder) -> Iterator[str]:
    yield _wrapped(
        f"StarCoder2-7B ([record](results/cpu/7b/rows.jsonl)), {folder.plan.repeated()}, the share of the limit by "
        f"{_bandwidth(folder) / 1e9:.1f} GB/s; one above 100 says that neighbours took memory while the plain read was "
        "timed. fp32 does not fit this machine, so the ratios, the study's too, are to llama.cpp f16:"
    )
    yield _requests(folder, "llama-cpp:f16")
    for record in folder.records:
        if record.error is not None:
            yield _wrapped(f"What is told of {_name(record)}: {record.error}.")


def _measured(folder: Folder) -> str:
    """`measured once on 2 cores, Intel(R) Xeon(R) Processor @ 2.50GHz up to avx512_vnni`."""
    made = folder.manifest
    return f"{folder.plan.repeated()} on {made['cores']} cores, {made['cpu']} up to `{made['cpu_features'][-1]}`"


def _requests(folder: Folder, row: str) -> str:
    """The table of the rows' requests, with their ratios to that of `row`, beside the study's where it has them."""
    base = next(record for record in folder.records if str(record.row) == row)
    columns = ["", "seconds", f"ratio to {_name(base)}", "the study's", "tokens/s", "of the limit, %"]
    rows = []
    for record in folder.records:
        told = STUDY.get(str(record.row))
        theirs = f"{STUDY[row] / told:.3g}" if told else ""
        if record.request is None or record.decode is None or record.info is None or record.host_peak is None:
            rows.append([_name(record), "does not fit", "", theirs])
            continue
        assert base.request is not None
        share = record.info.weight_bytes * record.decode.median / _bandwidth(folder)
        rows.append([
            _name(record), significant(record.request.median),
            f"{base.request.median / record.request.median:.2f}", theirs,
            significant(record.decode.median), f"{100 * share:.0f}", f"{record.host_peak / 1e9:.1f}",
        ])  # fmt: skip
    return _table([*columns, "peak, GB"], rows)


def _bandwidth(folder: Folder) -> float:
    """Bytes per second of the best of the measurements beside the rows."""
    return max(record.bandwidth for record in folder.records if record.bandwidth is not None)


def _context(folder: Folder) -> Iterator[str]:
    yield "## Growth with the context\n"
    yield _wrapped(
        "Milliseconds per token of StarCoder2-3B in decoding, by the tokens of context before it "
        f"([record](results/cpu/context/rows.jsonl)), {_measured(folder)}. StarCoder2's sliding window has 4096 "
        "tokens: llama.cpp ends there, since it would attend past it, and torch keeps to the last 4096."
    )
    yield _growth(folder, lambda each: each.context, lambda rate: 1000 / rate)
    yield _picture("context", "Milliseconds per token of each row, by the tokens of context")


def _batch(folder: Folder) -> Iterator[str]:
    yield "## Growth with the batch\n"
    yield _wrapped(
        "Tokens per second of all sequences together in decoding, StarCoder2-3B, by how many there are "
        f"([record](results/cpu/batch/rows.jsonl)), {_measured(folder)}. Each backend was loaded once, for the most: "
        "torch computes every slot of the batch that it was loaded for, whether a sequence is in it or not."
    )
    yield _growth(folder, lambda each: each.batch_size, lambda rate: rate)
    yield _picture("batch", "Tokens per second of each row, by the sequences together")


def _threads(folder: Folder) -> Iterator[str]:
    yield "## Growth with the threads\n"
    yield _wrapped(
        f"Tokens per second of StarCoder2-3B, one sequence: prefill of {folder.plan.prompt_tokens} tokens, then decode "
        f"([record](results/cpu/threads/rows.jsonl)), {_measured(folder)}."
    )
    rows = [
        [_name(record), significant(record.prefill.median), significant(record.decode.median)]
        for record in folder.records
        if record.prefill is not None and record.decode is not None
    ]
    yield _table(["", "prefill", "decode"], rows)
    yield _picture("threads", "Prefill and decode of each row", name="speed")


def _growth(folder: Folder, size: Callable[[Workload], int], value: Callable[[float], float]) -> str:
    """The decode rates of every row by their size."""
    points = {
        record.row: {size(point.workload): point.rate for point in record.points if point.workload.kind == "tg"}
        for record in folder.records
    }
    sizes = sorted({size for each in points.values() for size in each})
    rows = []
    for record in folder.records:
        rates = points[record.row]
        cells = [
            significant(statistics.median(map(value, rates[each].values))) if each in rates else "" for each in sizes
        ]
        rows.append([_name(record), *cells])
    return _table(["", *map(str, sizes)], rows)


def _picture(part: str, says: str, name: str | None = None) -> str:
    return f"![{says}](results/cpu/{part}/plots/{name or part}.svg)\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    whole = [[*row, *[""] * (len(titles) - len(row))] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (titles, *whole)]
    return "\n".join([lines[0], "|---" * len(titles) + "|", *lines[1:]]) + "\n"


def _name(record: Record) -> str:
    """`torch fp32 compile`, `llama.cpp q4_k_m, 2 threads`."""
    options = dict(record.row.options)
    dtype, threads = options.get("dtype", ""), options.get("threads")
    mode = options.get("mode", "eager") if record.row.backend == "torch-cpu" else ""
    words = [NAMES[record.row.backend], record.row.scheme or "", DTYPES.get(dtype, dtype), mode]
    return " ".join(filter(None, words)) + (f", {threads} thread{'s' if threads != '1' else ''}" if threads else "")


def main() -> None:
    """Write what is between the marks anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{page()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
