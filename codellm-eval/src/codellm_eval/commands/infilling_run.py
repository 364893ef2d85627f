"""What `codellm eval infilling` runs: a model on the lines that were taken out of canonical solutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codellm.spec import LoadSpec
from codellm_eval.commands.continuation_run import SAMPLED, first_problems
from codellm_eval.commands.humaneval_run import HumanEvalRun, judge_setup, problems_digest
from codellm_eval.errors import refuse_dummy
from codellm_eval.humaneval.infilling import Infilling, infilling_tasks
from codellm_eval.humaneval.sampling import sampling


def infilling_run(spec: LoadSpec, arguments: Mapping[str, Any]) -> HumanEvalRun:
    """The run that the command's arguments ask for.

    Raises:
        InvalidValueError, ProblemsError, DummyModelError, InputError: it cannot be done; nothing was loaded.
    """
    refuse_dummy(spec.model.startswith("dummy:"), "pass@k")
    form, kind = Infilling(), arguments["task"]
    problems = first_problems(arguments["problems"], arguments["limit"])
    tasks = infilling_tasks(problems, kind, arguments["spans"])
    judge, unjudged = judge_setup(arguments)
    return HumanEvalRun(
        name="infilling",
        spec=spec,
        form=form,
        params=sampling(**{name: arguments[name] for name in SAMPLED}),
        n_samples=arguments["n_samples"],
        problems=tasks,
        canonical=problems,
        settings={
            "task": kind,
            "problems": problems_digest(problems),
            "problems_file": None if arguments["problems"] is None else str(arguments["problems"]),
            "limit": arguments["limit"],
            "spans": arguments["spans"],
            "timeout": arguments["timeout"],
            "memory": arguments["memory"],
        },
        cells={"task": kind},
        judge=judge,
        unjudged=unjudged,
        output=arguments["output"],
    )
