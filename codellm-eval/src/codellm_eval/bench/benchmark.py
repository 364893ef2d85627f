"""One benchmark from its settings to the printed table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import cattrs
import click

from codellm.cli.options import parse_options
from codellm.cli.output import for_people, note
from codellm_eval.bench.ask.choice import choose_rows, reference_first
from codellm_eval.bench.ask.job import Job, QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.measure.prompt import check_task
from codellm_eval.bench.process.pipe import explain
from codellm_eval.bench.process.row_process import run_row
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.records.results import Results, default_path
from codellm_eval.bench.show import table
from codellm_eval.bench.show.cells import significant
from codellm_eval.bench.show.notes import notes
from codellm_eval.bench.show.progress import Progress


@attrs.frozen(kw_only=True)
class Benchmark:
    """What to measure and where to leave it; everything in it is checked before the first row costs time."""

    jobs: tuple[Job, ...]
    plan: Plan
    quality: QualityPlan | None
    timeout: float
    results: Results
    format: str

    @classmethod
    def of(cls, **arguments: Any) -> Self:
        """The benchmark that the command line's `arguments` ask for.

        Raises:
            InvalidValueError: a size, a row or an option that no run could accept, or a folder that is taken.
            UnknownNameError: a backend, a scheme or a model that nobody knows.
            BackendChoiceError: no row was named and no backend takes this model here.
        """
        if arguments["task"] is not None:
            check_task(arguments["task"])
        plan = Plan.of_lists(
            prompt_tokens=arguments["prompt_tokens"],
            new_tokens=arguments["new_tokens"],
            batch_sizes=arguments["batch_size"],
            contexts=arguments["context"],
            growth=arguments["growth"],
            task=arguments["task"],
            repeats=arguments["repeats"],
            seed=arguments["seed"],
        )
        quality = QualityPlan(
            text_bytes=arguments["quality_bytes"],
            allow_code_execution=arguments["allow_code_execution"],
            limit=arguments["limit"],
            max_tokens=arguments["max_tokens"],
            batch_size=arguments["humaneval_batch_size"],
        )
        common: dict[str, Any] = {
            "model": arguments["model"],
            "plan": plan,
            "quality": None if arguments["no_quality"] else quality,
            "threads": arguments["threads"],
            "device": arguments["device"],
            "options": parse_options(arguments["options"]),
        }
        rows = reference_first(choose_rows(arguments["model"], arguments["rows"]), arguments["reference"])
        jobs = [Job(row=row, reference=rows[0], **common) for row in rows]
        for job in jobs:
            job.spec()  # a value out of range is refused here
        results = Results(arguments["output"] or default_path(arguments["model"]), cattrs.unstructure(common), rows[0])
        return cls(
            jobs=tuple(attrs.evolve(job, samples=str(results.samples(job.row))) for job in jobs),
            plan=plan,
            quality=common["quality"],
            timeout=arguments["timeout"],
            results=results,
            format=arguments["format_"],
        )

    def run(self, write_report: Callable[[Path], Path]) -> bool:
        """Measure every row, print the table, leave the folder and its report; whether at least one row worked.

        KeyboardInterrupt passes through, after the rows that were finished were printed and kept.
        """
        records: list[Record] = []
        try:
            with self.results.reference_folder() as folder, Progress(len(self.jobs)) as progress:
                self._run_rows(records, progress, folder if len(self.jobs) > 1 else None)
        finally:
            self._finish(records)
            if records:
                self._report(write_report)
        return any(record.error is None for record in records)

    def _run_rows(self, records: list[Record], progress: Progress, folder: Path | None) -> None:
        bandwidths: dict[str, float] = {}
        known = {record.row: record for record in self.results.records}
        finished = self._finished(known)
        for number, job in enumerate(self.jobs, 1):

            def on_phase(text: str, number: int = number, row: Row = job.row) -> None:
                progress.phase(number, row, text)

            kept = None if folder is None else str(folder)
            record = finished.get(job.row)
            if record is None:
                told = attrs.evolve(job, bandwidths=bandwidths, reference_folder=kept)
                record = run_row(told, self.timeout, on_phase)
                if records:
                    record = record.compared_with(records[0])
                self.results.add(record)
                record = record.after(known.get(job.row))
            records.append(record)
            progress.done(number, record.row, _ending(record), record.seconds)
            if record.info is not None and record.bandwidth is not None:
                bandwidths[f"{record.info.backend}@{record.info.device}"] = record.bandwidth

    def _finished(self, known: Mapping[Row, Record]) -> dict[Row, Record]:
        """The rows that need not be measured: nothing of them failed. Where one does and quality is told, the reference
        row is measured again too, since what it left to compare with is not kept.
        """
        finished = {row: record for row, record in known.items() if record.whole}
        if self.quality is not None and any(job.row not in finished for job in self.jobs):
            finished.pop(self.jobs[0].row, None)
        again = [str(row) for row in known if row not in finished]
        if finished:
            note(f"{self.results.path} has {len(finished)} rows already")
        if again:
            note(f"{self.results.path} has {', '.join(again)}, measured again")
        return finished

    def _finish(self, records: Sequence[Record]) -> None:
        remarks = notes(records, self.plan, self.quality)
        if records:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else table.WIDTH
            click.echo(table.render(records, self.plan, remarks, self.format, width), nl=False)
            if not for_people(self.format):
                for remark in remarks:
                    note(remark)
        self.results.finish(records, table.render(records, self.plan, remarks, "md"))
        note(f"results: {self.results.path}")

    def _report(self, write_report: Callable[[Path], Path]) -> None:
        """The HTML report; the results are kept and told whatever goes wrong there."""
        try:
            note(f"report: {write_report(self.results.path)}")
        except Exception as error:
            note(f"no report: {explain(error)}; `codellm bench report {self.results.path}` makes it again")


def _ending(record: Record) -> str:
    """How a row ended, in a line."""
    if record.prefill is None or record.decode is None:
        return f"failed: {record.error}"
    return f"{significant(record.prefill.median)} tok/s prefill, {significant(record.decode.median)} decode"
