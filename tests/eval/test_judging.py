"""The judge beside a model, with the real sandbox."""

import threading

import pytest

from codellm.errors import InputError
from codellm.system.machine import usable_threads
from codellm_eval.humaneval.judging import JudgeSetup, Judging
from codellm_eval.humaneval.samples import Sample
from codellm_eval.judge.judge import CONTROL
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import sandbox_status
from eval.commandline import needs_sandbox

pytestmark = needs_sandbox
PROBLEMS = {CONTROL.task_id: CONTROL}
SLOW = "    while True: pass\n"


@pytest.fixture(scope="module")
def setup():
    return JudgeSetup(sandbox_status().require(), Limits.of(1))


def sample(index, completion=CONTROL.canonical_solution):
    return Sample(task_id=CONTROL.task_id, completion=completion, index=index)


def hand_in(judging, *samples):
    with judging:
        for one in samples:
            judging.hand(one)
        judging.finish()


def test_verdicts_that_wait_hold_up_no_sample(setup):
    verdicts, handed = {}, threading.Event()

    def take(one, verdict):
        assert handed.wait(60)  # were samples only taken as others are judged, this would wait for itself
        verdicts[one.index] = verdict.outcome

    with Judging(PROBLEMS, setup, 1, take) as judging:
        for index in range(40):
            judging.hand(sample(index, SLOW) if index == 0 else sample(index))
        handed.set()
        judging.finish()
    assert verdicts == {index: "timeout" if index == 0 else "passed" for index in range(40)}


def test_leaving_by_an_exception_drops_what_is_not_judged(setup):
    verdicts = []

    def stop():
        with Judging(PROBLEMS, setup, 1, lambda *pair: verdicts.append(pair)) as judging:
            for index in range(60):
                judging.hand(sample(index, SLOW))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(verdicts) < 60


def test_a_fault_of_the_judge_reaches_who_hands_samples_in(setup):
    def take(one, verdict):
        raise InputError("the disk is full")

    with pytest.raises(InputError, match="disk is full"):
        hand_in(Judging(PROBLEMS, setup, 1, take), sample(0))


def test_a_model_keeps_half_of_the_processors(setup):
    assert setup.workers(beside_model=False) == usable_threads()
    assert setup.workers(beside_model=True) == max(1, usable_threads() // 2)
    assert JudgeSetup(setup.sandbox, setup.limits, 7).workers(beside_model=True) == 7
