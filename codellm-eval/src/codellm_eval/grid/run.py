"""One grid from its settings to the printed tables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import cattrs
import click

from codellm.cli.options import parse_options
from codellm.cli.output import note
from codellm.system import machine
from codellm.system.packages import installed_versions
from codellm_eval.bench.ask.choice import choose_rows, reference_first
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.process.pipe import explain
from codellm_eval.bench.records.results import default_path
from codellm_eval.bench.show.cells import significant
from codellm_eval.bench.show.progress import Progress
from codellm_eval.files import manifest
from codellm_eval.files.writing import unwritable, write_whole
from codellm_eval.grid import table
from codellm_eval.grid.cell import Cell
from codellm_eval.grid.figures import FIGURES
from codellm_eval.grid.folder import Grid, GridFolder
from codellm_eval.grid.job import GridJob
from codellm_eval.grid.plan import DEFAULTS, GridPlan, Size, refuse_sizes, sizes
from codellm_eval.grid.row_of_cells import RowOfCells


@attrs.frozen(kw_only=True)
class GridRun:
    """What to measure and where to leave it; everything in it is checked before the first cell costs time."""

    jobs: tuple[GridJob, ...]
    plan: GridPlan
    timeout: float
    path: Path
    format: str

    @classmethod
    def of(cls, **arguments: Any) -> Self:
        """The grid that the command line's `arguments` ask for.

        Raises:
            InvalidValueError: a size, a row or an option that no run could accept.
            UnknownNameError: a backend, a scheme or a model that nobody knows.
            BackendChoiceError: no row was named and no backend takes this model here.
        """
        protocol = arguments["protocol"]
        plan = GridPlan.of(protocol, arguments["new_tokens"], arguments["repeats"], arguments["seed"])
        usual = DEFAULTS[protocol]
        asked = sizes(arguments["batch_size"] or usual.batch_sizes, arguments["context"] or usual.contexts)
        rows = reference_first(choose_rows(arguments["model"], arguments["rows"]), arguments["reference"])
        jobs = tuple(
            GridJob(
                row=row,
                model=arguments["model"],
                plan=plan,
                sizes=asked,
                threads=arguments["threads"],
                device=arguments["device"],
                options=parse_options(arguments["options"]),
            )
            for row in rows
        )
        for job in jobs:
            refuse_sizes(tuple(job.row.options), job.row)
            job.spec(asked[0])  # a value out of range is refused here
        path = arguments["output"] or default_path(arguments["model"])
        return cls(jobs=jobs, plan=plan, timeout=arguments["timeout"], path=path, format=arguments["format_"])

    def run(self) -> bool:
        """Measure every cell that the folder has not, print the tables; whether at least one cell could be told of.

        KeyboardInterrupt passes through, after what was finished was printed and kept.

        Raises:
            InputError: the folder cannot be written, another run writes it, or it holds another grid.
        """
        with GridFolder(self.path, self._settings()) as folder:
            try:
                self._measure(folder)
            finally:
                if folder.cells:
                    self._finish(folder)
            return any(cell.error is None for cell in folder.cells.values())

    def _settings(self) -> dict[str, Any]:
        """What all cells depend on. Rows and sizes are no part of it: a folder may get further ones."""
        job = self.jobs[0]
        return {
            "model": job.model,
            "plan": cattrs.unstructure(self.plan),
            "load": {"threads": job.threads, "device": job.device, **{f"-o {k}": v for k, v in job.options.items()}},
            "machine": {"cpu": machine.cpu_name(), "gpus": ", ".join(manifest.gpu_names())},
            "versions": {f"version of {k}": v for k, v in installed_versions(manifest.PACKAGES).items()},
        }

    def _measure(self, folder: GridFolder) -> None:
        jobs = [attrs.evolve(job, sizes=_missing(job, folder.cells)) for job in self.jobs]
        count = sum(len(job.sizes) for job in jobs)
        known = sum(len(job.sizes) for job in self.jobs) - count
        if known:
            note(f"{self.path} has {known} of {known + count} cells already")
        number = 0
        with Progress(count) as progress:
            for job in filter(lambda job: job.sizes, jobs):

                def on_phase(size: Size, text: str, row: Row = job.row) -> None:
                    progress.phase(number + 1, f"{row} {size}", text)

                def on_cell(cell: Cell) -> None:
                    nonlocal number
                    number += 1
                    folder.add(cell)
                    progress.done(number, f"{cell.row} {cell.size}", _ending(cell, self.plan), cell.seconds)

                RowOfCells(job, self.timeout, on_cell, on_phase).run()

    def _finish(self, folder: GridFolder) -> None:
        folder.finish()
        cells = folder.cells
        first = self.jobs[0].row
        reference = first if any(row == first for row, _ in cells) else next(iter(cells))[0]
        grid = attrs.evolve(Grid.read(self.path), reference=reference)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else table.WIDTH
        click.echo(table.render(grid, self.format, width), nl=False)
        note(f"results: {self.path}")
        leave(self.path, grid)


def leave(path: Path, grid: Grid) -> Path:
    """Write the tables and pictures of `grid` beside its cells → the tables' file.

    What was measured is kept whatever goes wrong there.

    Raises:
        InputError: the tables cannot be written.
    """
    from codellm_eval.grid.picture import pictures

    try:
        write_whole(path / "table.md", table.render(grid, "md"))
    except OSError as error:
        raise unwritable(path / "table.md", error) from error
    try:
        for picture in pictures(grid):
            (path / "plots").mkdir(exist_ok=True)
            write_whole(path / "plots" / f"{picture.name}.svg", picture.svg)
            write_whole(path / "plots" / f"{picture.name}.png", picture.png)
    except Exception as error:
        note(f"no pictures: {explain(error)}; `codellm bench report {path}` makes them again")
    return path / "table.md"


def _missing(job: GridJob, cells: Mapping[tuple[Row, Size], Cell]) -> tuple[Size, ...]:
    """The sizes without a cell; what failed is tried again, what was out of memory is known."""
    done = {size for (row, size), cell in cells.items() if row == job.row and cell.error is None}
    return tuple(size for size in job.sizes if size not in done)


def _ending(cell: Cell, plan: GridPlan) -> str:
    """How a cell ended, in a line."""
    if cell.out_of_memory is not None:
        return f"out of memory: {cell.out_of_memory}"
    if cell.error is not None:
        return f"failed: {cell.error}"
    shown = [(figure, figure.shown(cell)) for figure in FIGURES[plan.protocol]]
    return ", ".join(f"{significant(each.median)} {figure.unit} {figure.key}" for figure, each in shown if each)
