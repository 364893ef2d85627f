"""Which problems of a file can be judged here: those whose canonical solution passes, and why the others' does not."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping

import attrs

from codellm_eval.humaneval.scoring import failed_canonical
from codellm_eval.judge.harness.checker import Problem as Compiled
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.judge import Verdict
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem

_CAPTURING = {"StringIO", "capfd", "capsys", "redirect_stderr", "redirect_stdout", "stderr", "stdout"}
_LOOKING_INSIDE = {"inspect", "getsource", "signature", "__code__", "__annotations__"}


@attrs.frozen
class Judgeable:
    """What can be judged: `problems`, the `unchecked` of which have no canonical solution; why the `refused` cannot."""

    problems: Mapping[str, Problem]
    unchecked: tuple[str, ...]
    refused: Mapping[str, str]


def judgeable(problems: Mapping[str, Problem], *, sandbox: Sandbox, limits: Limits, workers: int) -> Judgeable:
    """Judge the canonical solutions, each problem for itself.

    Raises:
        SandboxError: the sandbox did not start.
    """
    refused = {task: why for task, problem in problems.items() if (why := _fault(problem))}
    unchecked = tuple(
        task for task in problems if task not in refused and not problems[task].canonical_solution.strip()
    )
    checked = {task: each for task, each in problems.items() if task not in refused and task not in unchecked}
    failed = failed_canonical(checked, sandbox=sandbox, limits=limits, workers=workers)
    refused |= {task: _told(problems[task], verdict) for task, verdict in failed.items()}
    return Judgeable(
        problems={task: each for task, each in problems.items() if task not in refused},
        unchecked=unchecked,
        refused={task: refused[task] for task in problems if task in refused},
    )


def _fault(problem: Problem) -> str:
    """Why a problem is no Python, if it is none."""
    reference = problem.prompt + problem.canonical_solution + problem.suffix
    try:
        with warnings.catch_warnings(action="ignore"):
            Compiled(problem.prompt, reference, problem.test, problem.entry_point)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"its prompt or test is no Python ({type(error).__name__}: {' '.join(str(error).split())})"
    return ""


def _told(problem: Problem, verdict: Verdict) -> str:
    said = f"its canonical solution does not pass here ({verdict.outcome} {verdict.message}".rstrip() + ")"
    return "; ".join([said, *_beyond(problem)])


def _beyond(problem: Problem) -> Iterator[str]:
    """What a problem asks of a judge that keeps its test apart from the program."""
    entry = _definition(problem)
    if isinstance(entry, ast.ClassDef):
        yield "its entry point is a class"
    if isinstance(entry, ast.AsyncFunctionDef):
        yield "its entry point is a coroutine function, which only its own process can await"
    used = _names(problem.test)
    if used & _CAPTURING:
        yield "its test captures output, which stays in the sandbox"
    if used & _LOOKING_INSIDE:
        yield "its test looks into the function, which is not there"


def _definition(problem: Problem) -> ast.stmt | None:
    """What defines the entry point, in the canonical solution."""
    try:
        tree = ast.parse(problem.prompt + problem.canonical_solution + problem.suffix)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return next((node for node in tree.body if getattr(node, "name", None) == problem.entry_point), None)


def _names(source: str) -> set[str]:
    """All names and attributes in a source that is Python, as `sys` and `stdout` of `sys.stdout`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found
