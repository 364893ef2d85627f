"""Intervals and tests of paired differences: known values, and what holds for any."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_eval.stats.paired import LEAST_UNITS, Interval, bootstrap, mcnemar, student_quantile

VALUES = st.lists(st.floats(-100, 100), min_size=LEAST_UNITS, max_size=40)


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # printed tables of t at 0.975
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423), (163, 1.9746)],
)
def test_quantiles_of_student(freedom, quantile):
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=6e-5)


def test_student_becomes_normal():
    assert student_quantile(0.975, 100_001) == pytest.approx(1.95996, abs=1e-4)
    assert student_quantile(0.975, 100_000) == pytest.approx(1.95996, abs=1e-4)


@pytest.mark.parametrize(
    ("lost", "gained", "probability"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 0.0625), (6, 0, 0.03125), (1, 9, 22 / 1024), (8, 2, 112 / 1024), (7, 7, 1)],
)
def test_mcnemar_of_known_splits(lost, gained, probability):
    assert mcnemar(lost, gained) == pytest.approx(probability)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_probability_and_takes_no_side(lost, gained):
    found = mcnemar(lost, gained)
    assert 0 < found <= 1
    assert found == mcnemar(gained, lost)
    if lost > gained:
        assert mcnemar(lost + 1, gained) <= found


@settings(max_examples=25)
@given(VALUES, st.integers(0, 3))
def test_an_interval_repeats_by_its_seed_and_turns_with_the_sign(values, seed):
    ones = [1.0] * len(values)
    found = bootstrap(values, ones, seed)
    assert found == bootstrap(values, ones, seed)
    turned = bootstrap([-value for value in values], ones, seed)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


@settings(max_examples=25)
@given(VALUES, st.floats(0.01, 100), st.data())
def test_an_interval_moves_with_what_every_unit_gains(values, gain, data):
    weights = data.draw(st.lists(st.floats(1, 50), min_size=len(values), max_size=len(values)))
    found = bootstrap(values, weights)
    moved = bootstrap([value + gain * weight for value, weight in zip(values, weights, strict=True)], weights)
    assert (moved.low, moved.high) == pytest.approx((found.low + gain, found.high + gain), abs=1e-6)


def test_equal_units_leave_no_doubt():
    assert bootstrap([0.0] * 9, [3.0] * 9) == Interval(0, 0)
    assert bootstrap([0.0] * 9, [3.0] * 9).holds_zero
    certain = bootstrap([6.0] * 9, [3.0] * 9)
    assert (certain.low, certain.high) == pytest.approx((2, 2))
    assert not certain.holds_zero


def test_few_units_have_no_interval():
    assert bootstrap([1.0] * (LEAST_UNITS - 1), [1.0] * (LEAST_UNITS - 1)) is None
    assert bootstrap([], []) is None


@pytest.mark.parametrize("count", [6, 10])
def test_of_a_hundred_intervals_about_95_hold_the_truth(count):
    """The lie this would catch: a plain percentile interval of 6 units holds it 87 times, of 10 units 90 times."""
    rng = np.random.default_rng(count)
    trials, held = 300, 0
    for trial in range(trials):
        weights = rng.uniform(500, 2000, count)
        found = bootstrap(list(weights * 0.1 + rng.normal(0, 50, count)), list(weights), seed=trial)
        held += found.low <= 0.1 <= found.high
    assert abs(held / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_noise_is_noise_and_a_difference_one(shift):
    rng = np.random.default_rng(3)
    found = bootstrap(list(rng.normal(shift, 1, 50)), [1.0] * 50)
    assert found.holds_zero is (shift == 0)
