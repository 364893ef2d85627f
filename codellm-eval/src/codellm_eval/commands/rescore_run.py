"""What `codellm eval humaneval --rescore` runs: the samples of a run cut with another stop list, and judged anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from codellm.cli.output import note, progress
from codellm.errors import InputError
from codellm.system.machine import usable_threads
from codellm_eval.commands.continuation_run import NAME, first_problems
from codellm_eval.commands.humaneval_run import MODEL_COLUMNS, model_cells, problems_digest
from codellm_eval.commands.judge_run import note_outcomes, score_columns, score_row
from codellm_eval.errors import SamplesError
from codellm_eval.files.run_folder import Begun, RunFolder
from codellm_eval.files.tables import Column, render
from codellm_eval.humaneval.answers import Answers
from codellm_eval.humaneval.completion import Continuation
from codellm_eval.humaneval.samples import Sample, judged_line
from codellm_eval.humaneval.scoring import judge_canonical, judge_samples, score
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem
from codellm_eval.judge.sandbox import require_permission, sandbox_status


def rescore(
    path: Path,
    *,
    stops: str,
    problems_file: Path | None,
    allow: bool,
    timeout: int | None,
    memory: int | None,
    workers: int | None,
    format_: str,
) -> str:
    """Judge the samples of the run in the folder `path`, cut with the list `stops`; the table is returned.

    The limits of a program are those of the run where they are None. The verdicts go to results-STOPS.jsonl and the
    table to summary-STOPS.json beside the run's own, which stay.

    Raises:
        CodeExecutionError: nobody allowed model-written code to run.
        InputError, SamplesError, ProblemsError: there is no whole run of HumanEval, or not on these problems.
        SandboxError: there is no sandbox, or it stopped working.
    """
    folder, form = RunFolder(path), Continuation(stops)
    begun = folder.begun()
    if begun is None or begun.settings.get("benchmark") != NAME:
        raise InputError(f"{path}: holds no run of `codellm eval humaneval`")
    problems = _problems(folder, begun, problems_file)
    require_permission(allow)
    sandbox, workers = sandbox_status().require(), workers or usable_threads()
    limits = Limits.of(timeout or begun.settings["timeout"], memory or begun.settings["memory"])
    with Answers(folder, problems, begun.settings["n_samples"]) as answers:
        if answers.missing:
            raise SamplesError(
                f"{path}: {answers.missing} of {answers.total} samples are missing; finish the run with its own command"
            )
        samples = list(_cut(folder, answers.samples.values(), problems, form))
        judge_canonical(problems, sandbox=sandbox, limits=limits, workers=workers)
        verdicts = []
        with progress() as update:
            for pair in judge_samples(samples, problems, sandbox=sandbox, limits=limits, workers=workers):
                verdicts.append(pair)
                update("judged", len(verdicts), len(samples))
        found = score(verdicts)
        row = {**model_cells(begun.manifest), "stops": stops, **score_row(found)}

        def table(format_: str) -> str:
            columns = [*MODEL_COLUMNS, Column("stops", "Stops"), *score_columns(found, format_)]
            return render(columns, [row], format_)

        results = "".join(json.dumps(judged_line(*pair)) + "\n" for pair in verdicts)
        folder.write(f"results-{stops}.jsonl", results)
        folder.write(f"summary-{stops}.json", table("json"))
    note_outcomes(found)
    note(f"verdicts: {path / f'results-{stops}.jsonl'}")
    return table(format_)


def _problems(folder: RunFolder, begun: Begun, path: Path | None) -> dict[str, Problem]:
    """The problems of the run, from `path` where they have moved since.

    Raises:
        InputError: they are others than the run's.
    """
    named = begun.settings.get("problems_file")
    problems = first_problems(path or (Path(named) if named else None), begun.settings.get("limit"))
    if problems_digest(problems) != begun.settings.get("problems"):
        raise InputError(f"{folder.path}: its samples answer other problems than these; give theirs with --problems")
    return problems


def _cut(
    folder: RunFolder, samples: Iterable[Sample], problems: Mapping[str, Problem], form: Continuation
) -> Iterable[Sample]:
    """The samples with what the list makes of their raw text.

    Raises:
        SamplesError: generation ended at a stop of another list, and the list wants the text that would have followed.
    """
    for sample in samples:
        if form.lacks(sample.raw, sample.finish_reason):
            raise SamplesError(
                f"{folder.path}: generation ended at a stop, so what the list {form.stops!r} judges was never written; "
                f"generate with --stops {form.stops} and another --output"
            )
        yield attrs.evolve(sample, completion=form.completion(problems[sample.task_id], sample.raw))
