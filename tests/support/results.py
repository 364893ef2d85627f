"""Results folders of benchmarks that were never run, made from the rows of one that was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.record import Record, make_converter
from codellm_eval.stats.repeats import Repeats

DEMO = Path(__file__).parent / "demo_record"
"""What `codellm bench --allow-code-execution` once left of six rows, without the fields that came later."""


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
