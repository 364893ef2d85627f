import pytest

from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.differences import Solved, difference, solved
from codellm_eval.stats.paired import LEAST_PASSED, LEAST_UNITS, mcnemar

NAT = 0.6931471805599453
"""A bit in nats."""


def scored(bits, size=10, first=0):
    return [
        Scored(name=str(number), bytes=size, tokens=3, nll=each * NAT) for number, each in enumerate(bits, start=first)
    ]


def test_a_difference_is_of_what_both_have():
    found = difference(scored([20, 20, 20, 20, 20, 99]), scored([10, 10, 10, 10, 10]))
    assert (found.value, found.units) == (pytest.approx(1), 5)
    assert (found.interval.low, found.interval.high) == (pytest.approx(1), pytest.approx(1))
    assert found.told_apart
    assert difference(scored([1]), scored([1], first=5)) is None
    assert difference(scored([1], size=9), scored([1], size=10)) is None  # another text of that name
    assert difference([], []) is None


def test_what_the_interval_leaves_open_is_not_told_apart():
    mixed = difference(scored([11, 9, 12, 8, 10, 10]), scored([10] * 6))
    assert mixed.interval.low < 0 < mixed.interval.high
    assert not mixed.told_apart
    few = difference(scored([20] * (LEAST_UNITS - 1)), scored([10] * (LEAST_UNITS - 1)))
    assert (few.value, few.interval, few.told_apart) == (pytest.approx(1), None, False)


def test_texts_of_other_sizes_weigh_by_them():
    mine = [Scored(name="a", bytes=90, tokens=1, nll=90 * NAT), Scored(name="b", bytes=10, tokens=1, nll=0.0)]
    theirs = [Scored(name="a", bytes=90, tokens=1, nll=0.0), Scored(name="b", bytes=10, tokens=1, nll=0.0)]
    assert difference(mine, theirs).value == pytest.approx(0.9)


def verdicts(passed, of=40):
    return {str(task): task in passed for task in range(of)}


def test_tasks_are_compared_one_by_one():
    found = solved(verdicts(range(3, 13)), verdicts(range(12)))
    assert found == Solved(gained=1, lost=3, probability=mcnemar(3, 1))
    assert not found.told_apart
    assert solved(verdicts(range(20)), verdicts(range(2))).told_apart
    assert solved(verdicts(range(5)), {}) is None
    assert solved({"0": True, "x": True}, {"0": False, "y": True}).gained == 1


@pytest.mark.parametrize(("most", "asked"), [(LEAST_PASSED - 1, False), (LEAST_PASSED, True)])
def test_a_handful_of_tasks_is_no_test(most, asked):
    for mine, theirs in ((range(most), range(0)), (range(0), range(most))):
        found = solved(verdicts(mine), verdicts(theirs))
        assert (found.probability is not None, found.told_apart) == (asked, asked)
