"""Records of benchmarks and grids that were never run, and the folders that would hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from codellm.model import ModelInfo
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.record import Record, make_converter
from codellm_eval.grid.cell import Cell, converter
from codellm_eval.grid.folder import Grid
from codellm_eval.grid.plan import GridPlan, Size
from codellm_eval.stats.repeats import Repeats

DEMO = Path(__file__).parent / "demo_record"
"""What `codellm bench --allow-code-execution` once left of six rows, without the fields that came later."""
INFO = ModelInfo(
    backend="llama-cpp", architecture="starcoder2", parameters=1000, weight_bytes=14_345_000_000, context_length=2048,
    dtype="float16", scheme="q4_k_m", device="cpu", path="/m.gguf",
)  # fmt: skip


def record(row="llama-cpp:q4_k_m", **fields):
    """A row with a figure of every kind, unless `fields` say otherwise."""
    return Record(
        row=Row.parse(row), model="m", plan=Plan(), info=INFO, prefill=Repeats((15000.0, 15100.0)),
        decode=Repeats((88.8, 99.9)), ttft=Repeats((12.345, 10.0)), tpot=Repeats((0.0123, 0.0125)),
        host_peak=15_012_000_000, device_peak=0, bandwidth=2e12, bits_per_byte=1.2345, pass_at_1=0.128, passed=21,
        tasks=164, seconds=10.0,
    ) if not fields else attrs.evolve(record(row), **fields)  # fmt: skip


def row(text: str, **fields: Any) -> Record:
    """A row that worked, of which `fields` are other than in the demo's first."""
    return attrs.evolve(Folder.read(DEMO).records[0], row=Row.parse(text), **fields)


def growing(
    text: str, batches: Sequence[int] = (1, 2, 4, 8), contexts: Sequence[int] = (128, 512, 1920), **fields: Any
) -> Record:
    """A row that was measured with more sizes."""
    sizes = [Workload(kind="tg", tokens=128, batch_size=size) for size in batches]
    sizes += [Workload(kind="tg", tokens=128, context=context) for context in contexts]
    points = [Point(each, Repeats((90.0, 100.0 + each.context, 110.0 * each.batch_size))) for each in sizes]
    return row(text, plan=Plan(workloads=tuple(sizes)), points=tuple(points), **fields)


def failed(text: str, error: str) -> Record:
    """A row that did not."""
    return Record(row=Row.parse(text), model="codellm-demo", error=error)


def write(path: Path, records: Sequence[Record], **manifest: Any) -> Path:
    """A results folder that holds `records`; `manifest` stands over the demo's."""
    path.mkdir(parents=True)
    converter = make_converter()
    lines = [json.dumps(converter.unstructure(record)) for record in records]
    (path / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    made = json.loads((DEMO / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**made, **manifest}))
    return path


GPU_INFO = ModelInfo(
    backend="transformers-cuda", architecture="starcoder2", parameters=7_173_923_840, weight_bytes=14_347_847_680,
    context_length=18034, dtype="bfloat16", device="cuda", batch_size=8, dummy=True,
)  # fmt: skip


def cell(row="chip", batch_size=2, context=4096, **fields):
    """A cell whose figures follow from its size, unless `fields` say otherwise."""
    scale = batch_size * context / 8192
    known = {
        "info": GPU_INFO,
        "prefill": Repeats((0.677 * scale, 0.671 * scale, 0.688 * scale)),
        "decode": Repeats((0.0251, 0.0249, 0.026)),
        "host_peak": 2**30,
        "device_peak": int(15.25 * 2**30 + 2**28 * scale),
        "seconds": 12.0,
    }
    return Cell(row=Row.parse(row), size=Size(batch_size, context), **{**known, **fields})


def out_of_memory(row, batch_size, context, **fields):
    """One without figures."""
    reason = f"{batch_size} x {context} tokens need 41.2 GB and 40.0 are free"
    empty = dict.fromkeys(("info", "prefill", "decode", "host_peak", "device_peak"))
    return cell(row, batch_size, context, **empty, out_of_memory=reason, **fields)


def grid(cells, **plan):
    """The grid of `cells`, the first one's row the reference."""
    known = {each.key: each for each in cells}
    made = {"date": "2026-11-26T05:00:00+00:00", "command": "codellm bench grid", "gpus": ["NVIDIA H200 (140 GiB)"]}
    return Grid(model="dummy:starcoder2-7b", plan=GridPlan(**plan), cells=known, reference=cells[0].row, manifest=made)


def leave(path, made):
    """The files of a grid that a run left."""
    path.mkdir()
    known = converter()
    lines = [json.dumps(known.unstructure(each)) + "\n" for each in made.cells.values()]
    (path / "cells.jsonl").write_text("".join(lines))
    settings = {"model": made.model, "plan": known.unstructure(made.plan), "load": {"-o memory_gib": "40"}}
    (path / "manifest.json").write_text(json.dumps({**made.manifest, "settings": settings}))
