"""A results folder read back: what `results` wrote, also where the benchmark was killed half way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import cattrs

from codellm_eval.bench.ask.job import QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.record import Record, make_converter
from codellm_eval.errors import ResultsError

LONGEST_COUNT = 19
"""Digits of 2^63."""


@attrs.frozen(kw_only=True)
class Folder:
    """The rows of one benchmark and what they were made with."""

    path: Path
    records: tuple[Record, ...]
    plan: Plan
    quality: QualityPlan | None
    manifest: Mapping[str, Any]
    """As JSON; empty where there is none."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The results in `path`. A last line that was cut short while it was written is left out.

        Raises:
            ResultsError: there are none, or a file holds what no benchmark of this version wrote.
        """
        if not (path / "rows.jsonl").exists():
            raise ResultsError(f"{path}: holds no rows.jsonl; is it the folder of a `codellm bench`?")
        manifest = read_manifest(path / "manifest.json")
        records = tuple(read_records(path / "rows.jsonl"))
        if not records:
            raise ResultsError(f"{path}: holds no finished row; `codellm bench --output DIR` makes such a folder")
        settings, converter = manifest.get("bench", {}), make_converter()
        try:
            plan = converter.structure(settings["plan"], Plan) if settings else _widest(records)
            quality = settings.get("quality") and converter.structure(settings["quality"], QualityPlan)
        except _BROKEN as error:
            raise _unreadable(path / "manifest.json", error) from error
        return cls(path=path, records=records, plan=plan, quality=quality, manifest=manifest)

    @property
    def finished(self) -> bool:
        """Whether the benchmark came to its end."""
        settings = self.manifest.get("bench", {})
        return bool(self.manifest) and bool(settings.get("finished", True))


_BROKEN = (ValueError, TypeError, KeyError, AttributeError, cattrs.BaseValidationError)
"""What cattrs and our own validators raise at JSON of another shape."""


def read_manifest(file: Path) -> Mapping[str, Any]:
    """The manifest, empty where there is none.

    Raises:
        ResultsError: it is no JSON object.
    """
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(found, dict):
        raise ResultsError(f"{file}: is no manifest of a benchmark")
    return found


def read_records(file: Path) -> list[Record]:
    """The rows, of one that was measured again what is to be told; a last line that was cut while it was written is
    left out.

    Raises:
        ResultsError: the file cannot be read, or a line is no row.
    """
    converter = make_converter()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    records: dict[Row, Record] = {}
    # a line without its end was cut while it was written
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            record = converter.structure(json.loads(line, parse_int=_count), Record)
        except (*_BROKEN, RecursionError) as error:
            raise _unreadable(file, error, number) from error
        records[record.row] = record.after(records.get(record.row))
    return list(records.values())


def _count(digits: str) -> int:
    """A whole number that a machine could have counted: a longer one could not be computed with."""
    if len(digits) > LONGEST_COUNT:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _widest(records: tuple[Record, ...]) -> Plan:
    """The plan of the row that was cut least to fit its context."""
    return max((record.plan for record in records if record.plan), key=lambda plan: plan.context_length, default=Plan())


def _unreadable(file: Path, error: BaseException, line: int | None = None) -> ResultsError:
    where = f"{file}, line {line}" if line else str(file)
    what = "; ".join(cattrs.transform_error(error)) if isinstance(error, cattrs.BaseValidationError) else str(error)
    return ResultsError(f"{where}: cannot be read ({what[:200]}); was it written by another version of codellm?")
