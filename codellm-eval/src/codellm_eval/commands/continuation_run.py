"""What `codellm eval humaneval` runs: a model that continues the prompts of the problems of a file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codellm.spec import LoadSpec
from codellm_eval.commands.humaneval_run import HumanEvalRun, judge_setup, problems_digest
from codellm_eval.errors import refuse_dummy
from codellm_eval.humaneval.completion import Continuation
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.humaneval.sampling import sampling
from codellm_eval.judge.problem import Problem

NAME = "humaneval"
SAMPLED = ("n_samples", "temperature", "top_p", "seed", "max_tokens")
"""Options of the command that `sampling` takes."""


def continuation_run(spec: LoadSpec, arguments: Mapping[str, Any]) -> HumanEvalRun:
    """The run that the command's arguments ask for.

    Raises:
        InvalidValueError, ProblemsError, DummyModelError, InputError: it cannot be done; nothing was loaded.
    """
    refuse_dummy(spec.model.startswith("dummy:"), "pass@k")
    form = Continuation(arguments["stops"])
    problems = first_problems(arguments["problems"], arguments["limit"])
    judge, unjudged = judge_setup(arguments)
    return HumanEvalRun(
        name=NAME,
        spec=spec,
        form=form,
        params=sampling(**{name: arguments[name] for name in SAMPLED}),
        n_samples=arguments["n_samples"],
        problems=problems,
        canonical=problems,
        settings={
            "problems": problems_digest(problems),
            "problems_file": None if arguments["problems"] is None else str(arguments["problems"]),
            "limit": arguments["limit"],
            "stops": form.stops,
            "timeout": arguments["timeout"],
            "memory": arguments["memory"],
        },
        cells={"stops": form.stops},
        judge=judge,
        unjudged=unjudged,
        output=arguments["output"],
    )


def first_problems(path: Path | None, limit: int | None) -> dict[str, Problem]:
    """The first `limit` problems of a file, HumanEval's where it is None; all where there is no limit.

    Raises:
        ProblemsError, InputError: see `load_problems`.
    """
    return dict(itertools.islice(load_problems(path).items(), limit))
