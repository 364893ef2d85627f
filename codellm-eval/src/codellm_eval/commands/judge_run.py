"""What `codellm eval judge` runs, and how a score is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from codellm.cli.output import note, progress
from codellm.sources.regular import quoted
from codellm.system.machine import usable_threads
from codellm_eval.errors import ProblemsError
from codellm_eval.files.tables import Column, percent, render
from codellm_eval.files.writing import refuse_unwritable
from codellm_eval.humaneval.judgeable import judgeable
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.humaneval.samples import JsonlWriter, Sample, judged_line, read_samples
from codellm_eval.humaneval.scoring import Score, judge_canonical, judge_samples, score
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.judge import Verdict
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem
from codellm_eval.judge.sandbox import require_permission, unsandboxed_or_sandbox

Update = Callable[[str, int, int], None]
OUTCOMES = {
    "timeout": "ran out of time",
    "memory": "ran out of memory",
    "crash": "crashed",
    "refused": "gave answers that are not of the judge's protocol",
}
"""Ways to fail otherwise than by a test, which a table counts apart, and what is said of such a program."""


def run_judge(
    file: Path,
    problems: Path | None,
    allow: bool,
    unsandboxed: bool,
    timeout: int,
    memory: int,
    workers: int | None,
    output: Path | None,
    format_: str,
) -> str:
    """Judge the samples of `file`; the verdicts go to `output`, the table is returned.

    Raises:
        CodeExecutionError: nobody allowed model-written code to run.
        SandboxError: there is no sandbox, it stopped working, or a canonical solution of HumanEval does not pass in it.
        InputError, SamplesError, ProblemsError: a file cannot be read, the verdicts' file exists, or no problem of the
            file `problems` can be judged.
    """
    limits = Limits.of(timeout, memory)
    known = load_problems(problems)
    samples = read_samples(file, known)
    require_permission(allow)
    sandbox = unsandboxed_or_sandbox(unsandboxed)
    target = output or file.with_name(f"{file.name}_results.jsonl")
    refuse_unwritable(target.parent, target)
    answered = {sample.task_id for sample in samples}
    asked = {task: problem for task, problem in known.items() if task in answered}
    with JsonlWriter(target) as results, progress() as update:
        update("checking that the canonical solutions pass", 0, 0)
        if problems is None:
            judge_canonical(asked, sandbox=sandbox, limits=limits, workers=workers or usable_threads())
        else:
            asked = _judgeable(asked, problems, sandbox, limits, workers)
            samples = _of(samples, asked)
        found = judge_into(results, samples, known, sandbox, limits, workers, len(samples), update)
    if found.problems < len(known):
        done = "judged" if len(asked) < len(answered) else "answered"
        note(f"{found.problems} of {len(known)} problems are {done}: this is no figure for all of them")
    note_outcomes(found)
    note(f"verdicts: {target}, isolation {sandbox.level}")
    columns = [Column("file", "File"), *score_columns(found, format_)]
    return render(columns, [{"file": file.name, **score_row(found)}], format_)


def _judgeable(
    asked: Mapping[str, Problem], file: Path, sandbox: Sandbox, limits: Limits, workers: int | None
) -> dict[str, Problem]:
    """The problems that can be judged; of each other one it is said why not.

    Raises:
        ProblemsError: there is none.
        SandboxError: the sandbox did not start.
    """
    found = judgeable(asked, sandbox=sandbox, limits=limits, workers=workers or usable_threads())
    for task, why in found.refused.items():
        note(f"{quoted(task)} is not judged: {why}")
    if not found.problems:
        raise ProblemsError(f"{file}: none of the {len(asked)} problems that are answered can be judged here")
    if found.unchecked:
        note(f"{len(found.unchecked)} problems have no canonical solution: nothing shows that a right one passes here")
    return dict(found.problems)


def _of(samples: list[Sample], problems: Mapping[str, Problem]) -> list[Sample]:
    """The samples of these problems; it is said how many others there are."""
    kept = [sample for sample in samples if sample.task_id in problems]
    if len(kept) < len(samples):
        note(f"{len(samples) - len(kept)} of {len(samples)} samples answer problems that are not judged; none counts")
    return kept


def judge_into(
    results: JsonlWriter,
    samples: Iterable[Sample],
    problems: Mapping[str, Problem],
    sandbox: Sandbox,
    limits: Limits,
    workers: int | None,
    total: int,
    update: Update,
) -> Score:
    """Judge `samples` (`total` of them, maybe still generating) and write each verdict as it comes.

    Raises:
        SandboxError: the sandbox did not start.
    """
    stream = judge_samples(samples, problems, sandbox=sandbox, limits=limits, workers=workers or usable_threads())

    def written(verdicts: Iterable[tuple[Sample, Verdict]]) -> Iterator[tuple[Sample, Verdict]]:
        for sample, verdict in verdicts:
            results.write(judged_line(sample, verdict))
            update("judged", results.lines, total)
            yield sample, verdict

    with contextlib.closing(stream) as verdicts:
        return score(written(verdicts))


def score_columns(found: Score | None, format_: str) -> list[Column]:
    """The columns of a score, or of a run that was not judged. A terminal has room for the most important ones."""
    counts = [Column(key, key.capitalize(), align="right") for key in ("problems", "samples")]
    if found is None:
        return [*counts, Column("pass@1", "pass@1")]
    if format_ == "table":
        return [*counts, *(column for k in found.pass_at for column in (_rate(k), Column(f"pass@{k}_interval", "95%")))]
    rates = [column for k in found.pass_at for column in (_rate(k), _rate(k, "_low"), _rate(k, "_high"))]
    return [*counts, *rates, *(Column(key, key.capitalize(), align="right") for key in OUTCOMES)]


def _rate(k: int, bound: str = "") -> Column:
    return Column(f"pass@{k}{bound}", f"pass@{k}{bound.replace('_', ' ')}", percent, "right")


def score_row(found: Score) -> dict[str, Any]:
    """The cells of a score."""
    rates: dict[str, Any] = {f"pass@{k}": value for k, value in found.pass_at.items()}
    for k, interval in found.intervals.items():
        if interval is not None:
            rates[f"pass@{k}_low"], rates[f"pass@{k}_high"] = interval
            rates[f"pass@{k}_interval"] = "–".join(f"{100 * bound:.1f}" for bound in interval)
    outcomes = {key: found.outcomes.get(key, 0) for key in OUTCOMES}
    return {"problems": found.problems, "samples": found.samples, **rates, **outcomes}


def note_outcomes(found: Score) -> None:
    """Say how many programs failed otherwise than by their tests, which a terminal's table has no room for."""
    for outcome, what in OUTCOMES.items():
        if count := found.outcomes.get(outcome, 0):
            note(f"{count} of {found.samples} programs {what}; they count as failed")
