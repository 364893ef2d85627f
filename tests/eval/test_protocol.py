"""The checker against a candidate that says anything: it always ends with a label, and never with a pass."""

import json
import os
import socket
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_eval.judge.harness.channel import MAX_BYTES
from codellm_eval.judge.harness.checker import MAX_MESSAGE, Checker, Problem
from codellm_eval.judge.judge import Outcome, judge_all
from codellm_eval.judge.limits import Limits
from eval.test_codec import JSON, NEAR
from support.judging import CONTROL, sandbox_of

TEST = """
def check(candidate):
    given = [1, {'a': [2]}]
    try:
        answer = candidate(given, len, lambda x: [x], key=max)
        rest = [item for item in answer] if hasattr(answer, '__iter__') else [answer(given)]
    except Exception as error:
        answer = rest = error.args
    assert type(given) is list
    assert answer == 'a secret' and rest == ['another']
"""
PROBLEM = Problem("def f(*args, **kwargs):\n    pass\n", "", TEST, "f")
SMALL = st.integers(-1, 6) | st.none() | st.just([]) | NEAR
TAGS = st.sampled_from(["return", "raise", "refuse", "call", "next", "stop"])
NAMES = st.lists(
    st.sampled_from(["ValueError", "E\n", "SystemExit", "BaseExceptionGroup", "object", "", "x" * 500, "\0"])
)
NODES = st.just([]) | st.just([["list", 1], ["dict", "a", ["n", 0]], ["tuple", ["n", 0], ["a", 0]]]) | st.lists(NEAR)
MESSAGES = (
    JSON
    | st.tuples(st.just("return"), NODES, SMALL, st.just([]) | st.lists(st.tuples(SMALL, SMALL).map(list))).map(list)
    | st.tuples(st.just("raise"), NAMES | SMALL, NODES, SMALL, st.just([]) | SMALL).map(list)
    | st.tuples(st.sampled_from(["call", "next"]), SMALL, NODES, SMALL).map(list)
    | st.tuples(st.just("next"), SMALL).map(list)
    | st.tuples(st.just("refuse"), st.text()).map(list)
    | st.lists(SMALL | TAGS)
)


class Lost(BaseException):
    """The checker has lost its candidate, and would end here."""


def outcome_of(data):
    """What the checker says of a candidate that sends `data` and ends."""
    reports = []

    def lose(outcome, message):
        reports.append((outcome, message))
        raise Lost

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        reports.append(Checker(PROBLEM, ours, lose).run("a program"))
    outcome, message = reports[0]
    assert outcome in {*get_args(Outcome), "gone"}
    assert len(message) <= MAX_MESSAGE
    assert message.isprintable()
    return outcome


def framed(message):
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


DEFINED = framed(["return", [], 0, []])


@settings(max_examples=600)
@given(st.lists(MESSAGES, max_size=5))
def test_any_messages(messages):
    assert outcome_of(DEFINED + b"".join(map(framed, messages))) != "passed"


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    assert outcome_of(data) != "passed"
    assert outcome_of(DEFINED + data) != "passed"


def test_a_message_too_long_is_refused_before_it_is_read():
    assert outcome_of(DEFINED + (MAX_BYTES + 1).to_bytes(4, "big")) == "refused"
    assert outcome_of((1 << 31).to_bytes(4, "big") + b"x") == "refused"
    assert outcome_of(DEFINED + framed(["refuse", "x" * 100_000])) == "refused"


def test_answers_of_the_protocol_are_compared():
    answer = framed(["return", [], "a secret", []]) + framed(["return", [["tuple"]], ["n", 0], []])
    assert outcome_of(DEFINED + answer) == "failed"
    items = [framed(["return", [["tuple", *item]], ["n", 0], []]) for item in (["another"], [])]
    assert outcome_of(DEFINED + framed(["return", [], ["o", "iterator", 1], []]) + b"".join(items)) == "failed"
    assert outcome_of(DEFINED + framed(["return", [], ["o", "iterator", 1], []]) + items[0]) == "gone"


FUZZ = """
def add(a, b):
    import os
    for d in range(3, 64):
        try: os.write(d, bytes.fromhex({data!r}))
        except OSError: pass
    {then}
"""


def test_programs_that_speak_for_the_protocol_cost_the_judge_nothing():
    """In the real sandbox, where the run would end if the judge took one of them for its own failure."""
    sandbox = sandbox_of("A")
    noise = [os.urandom(number) for number in range(1, 40)]
    almost = [framed([tag, *rest])[: -cut or None] for tag in ("return", "raise", "call", "next", "refuse")
              for rest in ([], [0], [[], 4, []], [["E"], [], 0, []], ["x" * 70_000]) for cut in (0, 1)]  # fmt: skip
    ends = ("return 0", "os._exit(0)", "os.abort()", "import time; time.sleep(0.01); return 0")
    programs = [FUZZ.format(data=data.hex(), then=ends[n % 4]) for n, data in enumerate([*noise, *almost])]
    jobs = ((number, CONTROL, "    pass\n" + program) for number, program in enumerate(programs))
    verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=Limits(cpu_seconds=1, wall_seconds=2), workers=4))
    assert len(verdicts) == len(programs)
    # four bytes may name the length of a message that never comes: the check then waits for it until its time is up
    assert {verdict.outcome for verdict in verdicts.values()} <= {"failed", "crash", "refused", "timeout"}
