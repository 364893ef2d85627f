"""Which tests would leave something to the next one in their process."""

import ast

import attrs
import pytest

from codellm_eval.humaneval.problems import load_problems
from codellm_eval.judge.harness.checker import Problem
from codellm_eval.judge.harness.traces import leaves_traces
from codellm_eval.judge.judge import CONTROL, judge_all
from support.judging import LIMITS, sandbox_of

LEAVING = [
    "import random\nrandom.seed(1)",
    "from random import choice",
    "import os.path",
    "from . import sibling",
    "import collections.abc as abc, sys",
    "import math\nmath.pi = 3",
    "import math\ndel math.pi",
    "import math\nmath.pi += 1",
    "import math\nfor math.pi in range(3): pass",
    "import typing\ntyping.sys.setrecursionlimit(50)",
    "from typing import sys",
    "from copy import _deepcopy_dispatch",
    "import re\nre.purge()",
    "import math\nsetattr(math, 'pi', 3)",
    "import math\nmath.__dict__['pi'] = 3",
    "import math\nvars(math)['pi'] = 3",
    "import operator, math\noperator.attrgetter('__dict__')(math)['pi'] = 3",
    "__builtins__['sum'] = max",
    "f'{check.__globals__}'",
    "eval('1 + 1')",
    "def check(f, do=exec): do('import math; math.pi = 3')",
    "@exec\nclass A: pass",
    "open('/dev/null')",
]
LEAVING_NOTHING = [
    "import math\nfrom typing import List\nfrom collections import *\ndef check(f: List[int]): assert f(math.pi)",
    "METADATA = {}\nMETADATA['a'] = [1]\nMETADATA['a'][0] += 1",
    "class A(list):\n    limit = 3\n    def __eq__(self, other): return len(self) == len(other)",
    "if __name__ == '__main__':\n    for _ in range(3): print(_)",
    "def check(f):\n    try: f()\n    except ValueError as error: assert error.args",
]
CHANGES = """
import builtins, decimal, random, signal, sys, warnings
def check(candidate):
    builtins.sum = lambda items: 0
    decimal.getcontext().prec = 2
    random.seed(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.setrecursionlimit(60)
    sys.stdout = None
    warnings.simplefilter("error")
    assert candidate(1, 2) == 3
"""
SEES = """
import builtins, decimal, random, signal, sys, warnings
def check(candidate):
    assert sum([1, 2]) == candidate(1, 2)
    assert decimal.getcontext().prec == 28
    assert random.random() != 0.13436424411240122
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert sys.getrecursionlimit() > 60
    assert sys.stdout is not None
    assert not warnings.filters or warnings.filters[0][0] != "error"
"""


@pytest.mark.parametrize("source", LEAVING)
def test_what_reaches_beyond_its_module_leaves_traces(source):
    assert leaves_traces(ast.parse(source))


@pytest.mark.parametrize("source", LEAVING_NOTHING)
def test_what_stays_in_its_module_leaves_none(source):
    assert not leaves_traces(ast.parse(source))


def test_traces_of_a_prompt_or_a_test_are_those_of_the_problem():
    parts = {"prompt": "def f(): pass\n", "reference": "def f(): return 1\n", "test": "def check(f): f()\n"}
    assert not Problem(**parts, entry_point="f").leaves_traces
    for name in ("reference", "test"):
        assert Problem(**{**parts, name: "import sys\n" + parts[name]}, entry_point="f").leaves_traces


def test_nearly_all_of_humaneval_shares_a_process():
    problems = load_problems().values()
    leaving = [p for p in problems
               if Problem(p.prompt, p.prompt + p.canonical_solution, p.test, p.entry_point).leaves_traces]  # fmt: skip
    assert {problem.task_id for problem in leaving} == {f"HumanEval/{number}" for number in (32, 38, 50, 53, 160)}


def test_no_test_finds_what_another_one_left():
    tests = [CHANGES, SEES, CONTROL.test + "    assert sum([1, 2]) == 3\n"] * 2
    jobs = ((n, attrs.evolve(CONTROL, task_id=str(n), test=test), CONTROL.canonical_solution)
            for n, test in enumerate(tests))  # fmt: skip
    verdicts = dict(judge_all(jobs, sandbox=sandbox_of("A"), limits=LIMITS, workers=1))
    assert {n: verdict.message for n, verdict in verdicts.items() if not verdict.passed} == {}
