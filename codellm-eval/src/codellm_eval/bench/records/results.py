"""The folder that a benchmark leaves: rows as they finish, then the table and the manifest."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from codellm.errors import InvalidValueError
from codellm.model import ModelInfo
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.folder import read_manifest, read_records
from codellm_eval.bench.records.record import Record, make_converter
from codellm_eval.files import manifest
from codellm_eval.files.journal import Journal
from codellm_eval.files.writing import unwritable, write_whole

_MADE_WITH = ("packages", "cpu", "cpu_features", "cores", "gpus")
"""Of a manifest what must not change between the rows of one folder."""
_REFERENCE = ".reference-"


class Results:
    """Folder of `rows.jsonl` (every repeat of every row), `samples-ROW.jsonl`, `table.md` and `manifest.json`.

    `settings` are what the figures depend on besides the rows. A folder of a benchmark with the same ones, on the same
    versions and machine, is gone on with: `records` are the rows that it has. Their quality is told beside that
    of `reference`.

    Raises:
        InvalidValueError: the folder holds the results of another benchmark.
        InputError: the folder cannot be written, or another process writes it.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], reference: Row) -> None:
        self.path = path
        self._settings = dict(settings)
        self._converter = make_converter()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        found = read_manifest(path / "manifest.json")
        if found and "bench" not in found:
            raise InvalidValueError(f"{path}: holds what another command left; name another folder with --output")
        self._journal = Journal(path / "rows.jsonl")
        try:
            self.records = self._begun(reference) if self._journal.lines else []
            for left in path.glob(f"{_REFERENCE}*"):  # by a benchmark that was killed
                shutil.rmtree(left, ignore_errors=True)
            self._write_manifest((), finished=False)
        except BaseException:
            self._journal.close()
            raise

    def _begun(self, reference: Row) -> list[Record]:
        """The rows of this benchmark that are there."""
        found = read_manifest(self.path / "manifest.json")
        now = json.loads(manifest.collect().to_json())
        same = _without(found.get("bench"), "finished") == json.loads(json.dumps(self._settings))
        if not same or any(found.get(key) != now[key] for key in _MADE_WITH):
            raise InvalidValueError(
                f"{self.path}: holds the results of another benchmark, or of one that was made with other versions or "
                "on another machine; name another folder with --output"
            )
        records = read_records(self.path / "rows.jsonl")
        first = records[0].row
        if self._settings["quality"] is not None and first != reference:
            raise InvalidValueError(
                f"{self.path}: its rows are compared with {first}; name that with --reference, or another folder with "
                "--output"
            )
        return records

    def samples(self, row: Row) -> Path:
        """The file for a row's completions."""
        return self.path / f"samples-{row.slug}.jsonl"

    @contextlib.contextmanager
    def reference_folder(self) -> Iterator[Path]:
        """A folder, while the benchmark runs, for what the reference row leaves to the others; hundreds of MB may be.

        Raises:
            InputError: it cannot be made.
        """
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=_REFERENCE, dir=self.path))
            except OSError as error:
                raise unwritable(self.path, error) from error
            yield Path(folder)

    def add(self, record: Record) -> None:
        """Keep a finished row, whatever happens to the next."""
        self._journal.append(self._converter.unstructure(record))

    def finish(self, records: Sequence[Record], table: str) -> None:
        """Write the table and what it was made with; `records` may be fewer than were planned.

        Raises:
            InputError: they cannot be written; the rows are kept.
        """
        try:
            self._write("table.md", table)
            self._write_manifest(records, finished=True)
        finally:
            self._journal.close()

    def _write_manifest(self, records: Sequence[Record], *, finished: bool) -> None:
        seeds = [self._settings["plan"]["seed"]]
        models = model_records((str(record.row), record.info) for record in records if record.info is not None)
        collected = json.loads(manifest.collect(seeds=seeds, models=models).to_json())
        made = {**collected, "bench": {**self._settings, "finished": finished}}
        text = json.dumps(made, indent=2, ensure_ascii=False)
        self._write("manifest.json", text + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            write_whole(self.path / name, text)
        except OSError as error:
            raise unwritable(self.path / name, error) from error


def default_path(model: str) -> Path:
    """Folder `results/<UTC time>-<model>` in the current directory."""
    now = dt.datetime.now(dt.UTC)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip("-.")
    return Path("results") / f"{now:%Y%m%dT%H%M%SZ}-{name or 'model'}"


def model_records(infos: Iterable[tuple[str, ModelInfo]]) -> Iterator[manifest.ModelRecord]:
    """What a manifest says of the models of rows, by their names."""
    for name, info in infos:
        try:
            yield manifest.record(name, info)
        except OSError:  # the file is gone since; everything else is still worth keeping
            yield manifest.ModelRecord(name=name, info=info, sha256=None)


def _without(fields: object, name: str) -> object:
    """Drop the one of that name from `fields`, where they are fields."""
    return {key: value for key, value in fields.items() if key != name} if isinstance(fields, dict) else fields
