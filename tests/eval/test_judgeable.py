"""Problems of all kinds of files: those that can be judged are, and of each other one it is said why not."""

import json

import attrs
import pytest

from codellm_eval.humaneval.judgeable import judgeable
from codellm_eval.judge.judge import CONTROL
from codellm_eval.judge.limits import Limits
from eval.commandline import error_line, evaluate, needs_sandbox, oracle_workdir
from support.judging import sandbox_of

NODE = "class Node:\n    def __init__(self, value): self.value = value\n\n"
CAPTURE = """
import contextlib, io
out = io.StringIO()
with contextlib.redirect_stdout(out): f(3)
assert out.getvalue() == '3\\n'
"""
CASES = {
    "plain": ("def f(a):\n", "    return a + 1\n", "assert f(1) == 2"),
    "lazy": ("def f(a):\n", "    return map(str, a)\n", "assert list(f([1])) == ['1']"),
    "an object as answer": (NODE + "def f(a):\n", "    return Node(a)\n", "assert f(3).value == 3"),
    "a class": ("", "class f:\n    def __init__(self, a): self.a = a\n    def twice(self): return 2 * self.a\n",
                "assert f(2).twice() == 4"),
    "a class that must be one": ("", "class f:\n    pass\n", "assert isinstance(f(), f)"),
    "object arguments": (NODE + "def f(a):\n", "    return a.value\n", "assert f(Node(3)) == 3"),
    "a coroutine function": ("import asyncio\n", "async def f(a): return a\n", "assert asyncio.run(f(3)) == 3"),
    "captured output": ("def f(a):\n", "    print(a)\n", CAPTURE),
    "inspect": ("def f(a):\n", "    return a\n", "import inspect\nassert inspect.getsource(f) and f(1) == 1"),
    "a test that is no Python": ("def f(a):\n", "    return a\n", "assert f( == 3"),
    "a test that nests too deeply": ("def f(a):\n", "    return a\n", "assert f(1) == " + "-" * 100_000 + "1"),
    "a test with a null": ("def f(a):\n", "    return a\n", "assert f(1) == 1 # \0"),
    "a module that is not there": ("import nowhere\ndef f(a):\n", "    return a\n", "assert f(1) == 1"),
    "a wrong solution": ("def f(a):\n", "    return a\n", "assert f(1) == 2"),
    "no solution": ("def f(a):\n", "", "assert f(1) == 2"),
}  # fmt: skip
JUDGED = {"plain", "lazy", "an object as answer", "a class", "no solution"}
WHY = {
    "a class that must be one": "its entry point is a class",
    "object arguments": "an argument of class Node does not cross",
    "a coroutine function": "its entry point is a coroutine function",
    "captured output": "its test captures output",
    "inspect": "its test looks into the function",
    "a test that is no Python": "its prompt or test is no Python (SyntaxError",
    "a test that nests too deeply": "its prompt or test is no Python",
    "a test with a null": "its prompt or test is no Python",
    "a module that is not there": "No module named 'nowhere'",
    "a wrong solution": "its canonical solution does not pass here (failed AssertionError)",
}


def problem(case):
    prompt, solution, test = CASES[case]
    body = "".join(f"    {line}\n" for line in test.splitlines())
    return attrs.evolve(
        CONTROL,
        task_id=case,
        prompt=prompt,
        canonical_solution=solution,
        entry_point="f",
        test=f"def check(f):\n{body}",
    )


@pytest.fixture(scope="module")
def found():
    problems = {case: problem(case) for case in CASES}
    return judgeable(problems, sandbox=sandbox_of("A"), limits=Limits(), workers=2)


def test_problems_whose_solution_passes_are_judged(found):
    assert set(found.problems) == JUDGED
    assert found.unchecked == ("no solution",)
    assert list(found.refused) == [case for case in CASES if case not in JUDGED]


@pytest.mark.parametrize("case", WHY)
def test_of_each_other_problem_it_is_said_why_it_is_not(case, found):
    assert WHY[case] in found.refused[case]
    assert found.refused[case].isprintable()


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    return oracle_workdir(tmp_path, monkeypatch)


def judge(workdir, answers, **how):
    """`eval judge` on the problems of CASES, with one completion for each of `answers`."""
    fields = ("task_id", "prompt", "canonical_solution", "entry_point", "test")
    lines = [{name: getattr(problem(case), name) for name in fields} for case in CASES]
    (workdir / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (workdir / "s.jsonl").write_text(
        "".join(json.dumps({"task_id": case, "completion": text}) + "\n" for case, text in answers)
    )
    options = ("--allow-code-execution", "--format", "json", "-o", "r.jsonl")
    return evaluate(workdir, "judge", "--problems", "p.jsonl", "s.jsonl", *options, **how)


@needs_sandbox
def test_a_problem_that_cannot_be_judged_costs_itself_alone(workdir):
    lazy = ("lazy", CASES["lazy"][1])
    answers = [("plain", "    return a + 1\n"), ("a test that is no Python", "    return 3\n"),
               ("plain", "    return a\n"), ("captured output", "    print(a)\n"), lazy]  # fmt: skip
    done = judge(workdir, answers)
    [row] = json.loads(done.stdout)
    assert (row["problems"], row["samples"], row["pass@1"]) == (2, 3, 0.75)
    told = [line for line in done.stderr.splitlines() if "is not judged:" in line]
    assert [line.partition(" is not judged")[0] for line in told] == ["'captured output'", "'a test that is no Python'"]
    assert f"2 of {len(CASES)} problems are judged: this is no figure for all of them" in done.stderr
    assert "2 of 5 samples answer problems that are not judged" in done.stderr
    assert len((workdir / "r.jsonl").read_text().splitlines()) == 3


@needs_sandbox
def test_a_file_of_which_nothing_can_be_judged_is_an_error(workdir):
    done = judge(workdir, [("inspect", "    return a\n"), ("object arguments", "    return a.value\n")], code=1)
    assert "p.jsonl: none of the 2 problems that are answered can be judged here" in error_line(done)
    assert "an argument of class Node does not cross" in done.stderr
    assert not (workdir / "r.jsonl").exists()


@needs_sandbox
def test_humaneval_is_judged_only_where_its_solutions_pass(workdir):
    (workdir / "s.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    return True\\n"}\n')
    done = evaluate(workdir, "judge", "s.jsonl", "--allow-code-execution", "--memory", "64")
    assert "1 of 164 problems are answered" in done.stderr
