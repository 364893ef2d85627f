"""The process that checks one program after the other, and when it ends."""

import json
import signal
import subprocess
import sys

import pytest

CHECKS = """
import json, os, socket, sys
from codellm_eval.judge.harness.candidate import answer_calls
from codellm_eval.judge.harness.checker import Problem
from codellm_eval.judge.harness.checker_process import CheckerProcess

problems = {n: Problem("def f(): pass", "", test, "f") for n, (test, _) in enumerate(json.loads(sys.argv[1]))}
checker = CheckerProcess(problems, {"memory": 1 << 30, "resources": {"RLIMIT_CPU": 1}})
for number, (_, program) in enumerate(json.loads(sys.argv[1])):
    ours, theirs = socket.socketpair()
    candidate = os.fork()
    if candidate == 0:
        ours.close()
        answer_calls(theirs)
    theirs.close()
    checker.start(number, program, ours)
    ours.close()
    report = checker.report()
    os.kill(candidate, 9)
    os.waitpid(candidate, 0)
    if report is None or not report.lasting:
        print(json.dumps([report, checker.end(by_force=False)]))
        break
    print(json.dumps([report, None]), flush=True)
"""
RIGHT, WRONG, LOST = "def f(): return 3", "def f(): return 4", "import os\ndef f(): os._exit(0)"


def checked(*checks):
    """Reports on (lines of a test, program) by one process, and how it ended."""
    tests = [("\n".join(("def check(f):", *(f"    {line}" for line in test.splitlines()))), program)
             for test, program in checks]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", CHECKS, json.dumps(tests)], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_process_checks_one_program_after_the_other():
    test = "assert f() == 3"
    found = checked(
        *[(test, RIGHT), (test, WRONG), ("pass", RIGHT), ("x = {}\nx[1] = f\nassert x[1]() == 3", RIGHT)] * 30
    )
    assert [report[0] for report, _ in found] == ["passed", "failed", "failed", "passed"] * 30
    assert {end for _, end in found} == {None}


@pytest.mark.parametrize(
    ("test", "program", "outcome"),
    [
        ("import random\nassert f() == 3", RIGHT, "passed"),
        ("import random\nassert f() == 3", WRONG, "failed"),
        ("try: f()\nexcept BaseException: pass", LOST, "gone"),
        ("x = [0] * 10 ** 12 if f() else 1", RIGHT, "memory"),
        ("x = [0] * 10 ** 7\nassert f() == 3", RIGHT, "passed"),
    ],
)
def test_a_process_ends_after_a_check_that_the_next_one_could_notice(test, program, outcome):
    fine = ("assert f() == 3", RIGHT)
    [first, (report, end)] = checked(fine, (test, program), fine)
    assert first == [["passed", "", True], None]
    assert report[0] == outcome
    assert not report[2]
    assert end == 0


def test_each_check_has_the_whole_time():
    test = "import itertools\nfor _ in itertools.repeat(None, 6 * 10 ** 6): pass\nassert f() == 3"
    found = checked(*[(test, RIGHT)] * 10, ("f()\nwhile True: pass", RIGHT))
    assert [report[0] for report, _ in found[:-1]] == ["passed"] * 10
    assert found[-1] == [None, -signal.SIGPROF]
