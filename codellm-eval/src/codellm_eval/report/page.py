"""The report as one HTML page: no script, nothing to fetch, whatever the records hold shown as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import attrs

from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.cells import NOISE, for_people
from codellm_eval.bench.show.notes import notes
from codellm_eval.bench.show.table import NONE, sections
from codellm_eval.report.inline import inline
from codellm_eval.report.pictures import Missing, Picture
from codellm_eval.report.ratios import ratios


@attrs.frozen(kw_only=True)
class Table:
    """A table as it is shown."""

    title: str
    columns: Sequence[tuple[str, str]]
    """Of each its name and its unit."""
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    """Of each its name, and each figure with its spread."""


def page(folder: Folder, pictures: Sequence[Picture | Missing]) -> str:
    """The HTML text. jinja2 is imported here; it escapes everything but our own style and pictures."""
    import jinja2
    from markupsafe import Markup

    def own(text: str) -> Markup:
        return Markup(text)  # noqa: S704 - the style is a file of ours, a picture holds names as outlines only

    files = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = lambda name: Markup(":<wbr>").join(name.split(":"))
    template = environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        style=own(files.joinpath("page.css").read_text(encoding="utf-8")),
        models=_models(folder.records),
        finished=folder.finished,
        facts=list(_facts(folder)),
        tables=tables(folder),
        pictures=[(each, own(inline(each.svg, each.name))) for each in pictures if isinstance(each, Picture)],
        missing=[each for each in pictures if isinstance(each, Missing)],
        notes=notes(folder.records, folder.plan, folder.quality),
        manifest=json.dumps(folder.manifest, indent=2, ensure_ascii=False),
    )


def tables(folder: Folder) -> list[Table]:
    """The tables that `codellm bench` prints, and after the first the ratios to the reference row."""
    shown = [(str(record.row), for_people(record)) for record in folder.records]
    first, *further = [
        Table(
            title=section.title,
            columns=list(section.columns.values()),
            rows=[(name, [cells.get(key, NONE) for key in section.columns]) for name, cells in shown],
        )
        for section in sections(folder.records, folder.plan)
    ]
    return [first, *_ratios(folder.records), *further]


def _ratios(records: Sequence[Record]) -> Iterator[Table]:
    found = ratios(records)
    if found is not None:
        yield Table(
            title=f"ratios to {found.reference}; {NOISE} may be none: the difference lies within the spreads of both",
            columns=[(name, "") for name in found.columns],
            rows=list(found.rows.items()),
        )


def _models(records: Sequence[Record]) -> str:
    return ", ".join(dict.fromkeys(record.model for record in records))


def _facts(folder: Folder) -> Iterator[tuple[str, str]]:
    """What the head of the report says of the model, the machine and the run."""
    for model, info in {record.model: record.info for record in folder.records if record.info}.items():
        dummy = ", random weights: a speed and no quality" if info.dummy else ""
        yield "model", f"{model}: {info.architecture}, {info.parameters / 1e6:,.1f} million parameters{dummy}"
    made: dict[str, Any] = dict(folder.manifest)
    if not made:
        return
    memory = made.get("memory_bytes")
    size = f", {memory / 2**30:.1f} GiB" if isinstance(memory, int) else ""
    yield "machine", f"{made.get('cpu')}, {made.get('cores')} cores{size}; {made.get('platform')}"
    if made.get("cpu_features"):
        yield "instruction sets", ", ".join(map(str, made["cpu_features"]))
    if made.get("gpus"):
        yield "GPUs", ", ".join(map(str, made["gpus"]))
    yield "date", str(made.get("date", "")).replace("T", " ").replace("+00:00", " UTC")
    yield "command", str(made.get("command"))
    packages = made.get("packages")
    versions = [f"{name} {version}" for name, version in packages.items()] if isinstance(packages, dict) else []
    yield "software", ", ".join([str(made.get("python")), *versions])
