"""What the harness says of a check is what the judge knows: neither has a word that the other lacks."""

from __future__ import annotations

import ast
import enum
from pathlib import Path
from typing import get_args

import pytest

from codellm_eval.commands.judge_run import OUTCOMES
from codellm_eval.judge import harness
from codellm_eval.judge.harness.labels import INSIDE, Label
from codellm_eval.judge.judge import CONTROL, Outcome, judge_all
from codellm_eval.judge.limits import Limits
from support.judging import sandbox_of

SOURCES = {path.name: path.read_text() for path in Path(harness.__file__).parent.glob("*.py")}
TELLING = {"tell", "lose", "_lose"}
"""Functions of the harness that take a label first."""
BY_THE_TEST = {"passed", "failed"}

EARNS = {
    "passed": "    return a + b\n",
    "failed": "    return 4\n",
    "timeout": "    while True: pass\n",
    "memory": "    return len([0] * (1 << 40))\n",
    "crash": "    import os\n    os.abort()\n",
    "refused": "    import os, time\n    os.closerange(3, 64)\n    time.sleep(60)\n",
}
"""Bodies of `add`, by what they get. The one that is refused sleeps: CPU time would end it first on a busy machine."""


def agree(labels, outcomes, inside=INSIDE):
    """See that labels and outcomes are the same words, but for those that stay inside the harness."""
    __tracebackhide__ = True
    said, known = {label.value for label in labels if label not in inside}, set(outcomes)
    assert said <= known, (
        f"the harness says {sorted(said - known)}, which is no outcome: name it in Outcome of judge/judge.py and in "
        "OUTCOMES of commands/judge_run.py; or in INSIDE of judge/harness/labels.py, where it never leaves the harness"
    )
    assert known <= said, (
        f"nobody can send {sorted(known - said)}: give it to Label of judge/harness/labels.py and say it in "
        "judge/harness/worker.py or checker.py, or take it out of Outcome of judge/judge.py"
    )


def first_words(node):
    """The strings that stand first where a function of the harness says a label."""
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in TELLING:
        yield from constants(node.args[:1])
    if isinstance(node, ast.FunctionDef) and node.returns is not None and "Label" in ast.unparse(node.returns):
        ends = (each for found in ast.walk(node) if isinstance(found, ast.Return) for each in ast.walk(found))
        yield from constants(each.elts[0] for each in ends if isinstance(each, ast.Tuple))


def constants(nodes):
    for node in nodes:
        yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))


def said_otherwise(sources):
    """Words that are said as a label and are none of `Label`'s own names."""
    return {
        (name, word)
        for name, source in sources.items()
        for node in ast.walk(ast.parse(source))
        for word in first_words(node)
        if isinstance(word, str)
    }


def test_the_harness_and_the_judge_know_the_same_words():
    agree(Label, get_args(Outcome))


def test_every_label_is_said_by_its_name():
    places = [ast.parse(source) for name, source in SOURCES.items() if name != "labels.py"]
    names = {ast.unparse(node) for tree in places for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for label in Label:
        assert f"Label.{label.name}" in names, (
            f"no process says {label.value!r}: take it out of judge/harness/labels.py, and out of Outcome of "
            "judge/judge.py, or say it in judge/harness/worker.py or checker.py"
        )
    assert not said_otherwise(SOURCES), "say labels by the names of Label in judge/harness/labels.py"


def test_a_table_counts_every_way_to_fail():
    assert {*OUTCOMES, *BY_THE_TEST} == set(get_args(Outcome)), (
        "name each outcome in OUTCOMES of commands/judge_run.py, with what is said of such a program"
    )


def test_every_outcome_is_earned_by_a_program():
    assert set(EARNS) == set(get_args(Outcome)), "give each outcome a program in EARNS"
    jobs = [(outcome, CONTROL, body) for outcome, body in EARNS.items()]
    limits = Limits(cpu_seconds=1, wall_seconds=12)
    verdicts = dict(judge_all(jobs, sandbox=sandbox_of("A"), limits=limits, workers=1))
    assert {expected: verdict.outcome for expected, verdict in verdicts.items()} == {each: each for each in EARNS}


def test_words_that_are_planted_are_told():
    planted = enum.StrEnum("Label", {label.name: label.value for label in Label} | {"FROZEN": "frozen"})
    with pytest.raises(AssertionError, match=r"says \['frozen'\], which is no outcome: .*judge/judge\.py"):
        agree(planted, get_args(Outcome))
    with pytest.raises(AssertionError, match=r"nobody can send \['frozen'\]: .*judge/harness/labels\.py"):
        agree(Label, [*get_args(Outcome), "frozen"])


@pytest.mark.parametrize(
    "line",
    [
        "def end() -> tuple[Label, str]: return 'frozen', 'it stands still'",
        "def end(hot) -> tuple[Label, str]: return (Label.FAILED, '') if hot else ('frozen', '')",
        "def end(hot): self._lose('frozen' if hot else Label.GONE, '')",
    ],
)
def test_a_word_that_is_no_label_is_told(line):
    assert said_otherwise({"worker.py": line}) == {("worker.py", "frozen")}
