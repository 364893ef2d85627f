"""The folder of a grid: every cell as it is finished, then the tables, the pictures and what it was made with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import cattrs

from codellm.errors import InputError
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.results import model_records
from codellm_eval.errors import ResultsError
from codellm_eval.files import manifest
from codellm_eval.files.journal import Journal
from codellm_eval.files.jsonl import parse_lines, read_text
from codellm_eval.files.run_folder import RunFolder, refuse_other
from codellm_eval.grid.cell import Cell, converter
from codellm_eval.grid.plan import GridPlan, Size

CELLS = "cells.jsonl"
Settings = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Grid:
    """The cells of one grid and what they were made with; `reference` is what the others are compared with."""

    model: str
    plan: GridPlan
    cells: Mapping[tuple[Row, Size], Cell]
    reference: Row | None
    manifest: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def rows(self) -> list[Row]:
        """The reference first, the others in the order measured."""
        found = dict.fromkeys(row for row, _ in self.cells)
        return sorted(found, key=lambda row: row != self.reference)

    @property
    def batch_sizes(self) -> list[int]:
        """Sizes that were asked for, ascending."""
        return sorted({size.batch_size for _, size in self.cells})

    @property
    def contexts(self) -> list[int]:
        """Sizes that were asked for, ascending."""
        return sorted({size.context for _, size in self.cells})

    def of(self, row: Row) -> list[Cell]:
        """The cells of a row."""
        return [cell for cell in self.cells.values() if cell.row == row]

    def reference_at(self, size: Size) -> Cell | None:
        """The reference row's cell of this size; None where it has none."""
        return self.cells.get((self.reference, size)) if self.reference is not None else None

    @property
    def dummy(self) -> bool:
        """Whether any of it was measured with random weights."""
        return any(cell.info is not None and cell.info.dummy for cell in self.cells.values())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The results in `path`; the row that was measured first is the reference.

        Raises:
            ResultsError: there are none, or a file holds what no grid of this version wrote.
        """
        try:
            made = json.loads(read_text(path / "manifest.json"))
            cells = cells_of(parse_lines(read_text(path / CELLS), path / CELLS))
            plan = cattrs.structure(made["settings"]["plan"], GridPlan)
            model = str(made["settings"]["model"])
        except (InputError, ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
            raise ResultsError(f"{path}: holds no grid that this version of codellm can read ({error})") from error
        first = next(iter(cells), None)
        return cls(model=model, plan=plan, cells=cells, reference=first and first[0], manifest=made)


def cells_of(lines: Iterable[tuple[int, dict[str, Any]]]) -> dict[tuple[Row, Size], Cell]:
    """The cells of a file's lines; of one that was tried again the last.

    Raises:
        ValueError: a line is no cell.
    """
    known = converter()
    cells = [known.structure(line, Cell) for _, line in lines]
    return {cell.key: cell for cell in cells}


class GridFolder:
    """Where a grid is kept while it is measured: a context manager that holds `cells.jsonl` against a second writer.

    `settings` are what all cells depend on; a folder that was begun with others is refused.

    Raises:
        InputError: the folder cannot be written, another run writes it, or it holds something else.
        ResultsError: it holds cells that this version cannot read.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.cells: dict[tuple[Row, Size], Cell] = {}
        self._settings = dict(settings)
        self._files = RunFolder(path)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        begun = self._files.begun()
        if begun is not None:
            refuse_other(self._files, flat(begun.settings), flat(self._settings))
        elif (self.path / "rows.jsonl").exists():
            raise InputError(f"{self.path}: holds the results of another benchmark; name another --output")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._files.made())
            self._journal = stack.enter_context(Journal(self.path / CELLS))
            try:
                self.cells = cells_of(self._journal.lines)
            except (ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
                raise ResultsError(
                    f"{self.path / CELLS}: cannot be read; was it written by another version?"
                ) from error
            if begun is None:
                self._files.begin(manifest.collect(seeds=[self._settings["plan"]["seed"]]), self._settings)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, cell: Cell) -> None:
        """Keep a finished cell, whatever happens to the next."""
        self._journal.append(converter().unstructure(cell))
        self.cells[cell.key] = cell

    def finish(self) -> None:
        """Tell in the manifest which models were measured."""
        infos = {str(cell.row): cell.info for cell in self.cells.values() if cell.info is not None}
        models = model_records(infos.items())
        made = manifest.collect(seeds=[self._settings["plan"]["seed"]], models=models)
        self._files.begin(made, self._settings)


def flat(settings: Settings) -> dict[str, Any]:
    """Settings without the depth that groups them, as a message names them."""
    return {
        name: value
        for key, group in settings.items()
        for name, value in (group.items() if isinstance(group, dict) else [(key, group)])
    }
