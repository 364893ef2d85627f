"""Grids without a process."""

from __future__ import annotations

import json

from codellm.model import ModelInfo
from codellm_eval.bench.ask.row import Row
from codellm_eval.grid.cell import Cell, converter
from codellm_eval.grid.folder import Grid
from codellm_eval.grid.plan import GridPlan, Size
from codellm_eval.stats.repeats import Repeats

INFO = ModelInfo(
    backend="transformers-cuda", architecture="starcoder2", parameters=7_173_923_840, weight_bytes=14_347_847_680,
    context_length=18034, dtype="bfloat16", device="cuda", batch_size=8, dummy=True,
)  # fmt: skip


def cell(row="chip", batch_size=2, context=4096, **fields):
    """A cell whose figures follow from its size, unless `fields` say otherwise."""
    scale = batch_size * context / 8192
    known = {
        "info": INFO,
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
