"""Scoring: samples become verdicts, verdicts pass@k, once right programs are known to pass here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping

import attrs

from codellm_eval.errors import SandboxError
from codellm_eval.humaneval.passk import bootstrap_interval, mean_pass_at_k, reported_ks
from codellm_eval.humaneval.samples import Sample
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.judge import Program, Verdict, judge_all
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem


def judge_canonical(problems: Mapping[str, Problem], *, sandbox: Sandbox, limits: Limits, workers: int) -> None:
    """See that the canonical solution of every problem passes here, before anything that a model wrote is judged.

    Raises:
        SandboxError: one does not, or the sandbox did not start: a figure would measure this machine.
    """
    failed = failed_canonical(problems, sandbox=sandbox, limits=limits, workers=workers)
    for task, verdict in failed.items():
        raise SandboxError(
            f"{len(failed)} of {len(problems)} canonical solutions do not pass here, so no model is judged; "
            f"first {task}: {verdict.outcome} {verdict.message}".rstrip()
        )


def failed_canonical(
    problems: Mapping[str, Problem], *, sandbox: Sandbox, limits: Limits, workers: int
) -> dict[str, Verdict]:
    """The verdicts on canonical solutions that do not pass here, by task, in the order of the problems.

    Raises:
        SandboxError: the sandbox did not start.
        ProblemsError: a problem is no Python.
    """
    jobs = ((task, problem, problem.canonical_solution + problem.suffix) for task, problem in problems.items())
    verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=limits, workers=workers))
    return {task: verdicts[task] for task in problems if not verdicts[task].passed}


def judge_samples(
    samples: Iterable[Sample], problems: Mapping[str, Problem], *, sandbox: Sandbox, limits: Limits, workers: int
) -> Generator[tuple[Sample, Verdict], None, None]:
    """Judge `samples`, which may still be generating, `workers` at a time; as they come.

    Raises:
        SandboxError: the sandbox did not start.
    """
    jobs = (_job(sample, problems[sample.task_id]) for sample in samples)
    return judge_all(jobs, sandbox=sandbox, limits=limits, workers=workers)


def _job(sample: Sample, problem: Problem) -> tuple[Sample, Problem, str | Program]:
    """What the judge is to run: the completion in its place, or a whole program after nothing."""
    if sample.solution is None:
        return sample, problem, sample.completion + problem.suffix
    return sample, problem, Program(sample.solution)


@attrs.frozen(kw_only=True)
class Score:
    """What the verdicts add up to: `pass_at` for each k that the samples allow, verdicts by their outcome.

    `intervals` hold each with 95 % confidence, None where there is none; see `passk.bootstrap_interval`.
    """

    problems: int
    samples: int
    pass_at: dict[int, float]
    intervals: dict[int, tuple[float, float] | None]
    outcomes: dict[str, int]


def score(verdicts: Iterable[tuple[Sample, Verdict]], origins: Mapping[str, str] | None = None) -> Score:
    """Add verdicts up: the mean over problems of the unbiased pass@k, for k = 1, 10 and 100 where samples allow.

    `origins` name what a task was made from, by its id: the intervals take tasks of one origin together.
    """
    drawn: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for sample, verdict in verdicts:
        drawn[sample.task_id] += 1
        passed[sample.task_id] += verdict.passed
        outcomes[verdict.outcome] += 1
    counts = [(drawn[task], passed[task]) for task in drawn]
    groups = None if origins is None else [origins[task] for task in drawn]
    ks = reported_ks(min(drawn.values(), default=0))
    return Score(
        problems=len(drawn),
        samples=drawn.total(),
        pass_at={k: mean_pass_at_k(counts, k) for k in ks},
        intervals={k: bootstrap_interval(counts, k, groups) for k in ks},
        outcomes=dict(outcomes),
    )
