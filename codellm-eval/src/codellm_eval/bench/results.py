"""The folder that a benchmark leaves: rows as they finish, then the table and the manifest."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cattrs

from codellm.errors import InvalidValueError
from codellm_eval import manifest
from codellm_eval.bench.job import QualityPlan
from codellm_eval.bench.plan import Plan
from codellm_eval.bench.record import Record, make_converter
from codellm_eval.bench.row import Row


class Results:
    """`rows.jsonl` (every repeat of every row, as it finishes), `samples-ROW.jsonl`, `table.md`, `manifest.json`.

    Raises:
        InvalidValueError: the folder cannot be made, or holds the results of another benchmark.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._converter = make_converter()
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "rows.jsonl").open("x").close()
        except FileExistsError as error:
            what = "is a file" if not path.is_dir() else "holds the results of another benchmark"
            raise InvalidValueError(f"{path}: {what}; name another folder with --output") from error
        except OSError as error:
            raise InvalidValueError(
                f"{path}: cannot be written ({error.strerror}); name another with --output"
            ) from error

    def samples(self, row: Row) -> Path:
        """The file for a row's completions."""
        return self.path / f"samples-{row.slug}.jsonl"

    @contextlib.contextmanager
    def reference_folder(self) -> Iterator[Path]:
        """A folder, while the benchmark runs, for what the reference row leaves to the others; hundreds of MB may be.

        Raises:
            InvalidValueError: it cannot be made.
        """
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".reference-", dir=self.path))
            except OSError as error:
                raise InvalidValueError(
                    f"{self.path}: cannot be written ({error.strerror}); name another with --output"
                ) from error
            yield Path(folder)

    def add(self, record: Record) -> None:
        """Keep a finished row, whatever happens to the next."""
        with (self.path / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(self._converter.unstructure(record), ensure_ascii=False) + "\n")

    def finish(self, records: Sequence[Record], table: str, plan: Plan, quality: QualityPlan | None) -> None:
        """Write the table and what it was made with; `records` may be fewer than were planned."""
        (self.path / "table.md").write_text(table, encoding="utf-8")
        collected = json.loads(manifest.collect(seeds=[plan.seed], models=_models(records)).to_json())
        text = json.dumps({**collected, "bench": _settings(plan, quality)}, indent=2, ensure_ascii=False)
        (self.path / "manifest.json").write_text(text + "\n", encoding="utf-8")


def default_path(model: str) -> Path:
    """`results/<UTC time>-<model>`, in the current directory."""
    now = dt.datetime.now(dt.UTC)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip("-.")
    return Path("results") / f"{now:%Y%m%dT%H%M%SZ}-{name or 'model'}"


def _models(records: Sequence[Record]) -> Iterable[manifest.ModelRecord]:
    for record in records:
        if record.info is not None:
            try:
                yield manifest.record(str(record.row), record.info)
            except OSError:  # the file is gone since; everything else is still worth keeping
                yield manifest.ModelRecord(name=str(record.row), info=record.info, sha256=None)


def _settings(plan: Plan, quality: QualityPlan | None) -> dict[str, Any]:
    return {"plan": cattrs.unstructure(plan), "quality": cattrs.unstructure(quality)}
