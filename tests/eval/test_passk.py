import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import InvalidValueError
from codellm_eval.humaneval.passk import bootstrap_interval, mean_pass_at_k, pass_at_k, reported_ks

counts = st.integers(1, 300).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)),
)


@given(counts)
def test_equals_the_ratio_of_binomials(case):
    n, c, k = case
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-12)


@given(counts)
def test_more_passes_or_more_draws_never_hurt(case):
    n, c, k = case
    here = pass_at_k(n, c, k)
    assert 0 <= here <= 1
    if c < n:
        assert pass_at_k(n, c + 1, k) >= here - 1e-12
    if k < n:
        assert pass_at_k(n, c, k + 1) >= here - 1e-12


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_counts_the_draws_that_hold_a_pass(case):
    n, c, k = case
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_known_values():
    assert pass_at_k(1, 1, 1) == 1
    assert pass_at_k(200, 20, 1) == pytest.approx(0.1)
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(10, 1, 10) == 1


def test_mean_is_over_problems_not_samples():
    assert mean_pass_at_k([(2, 2), (10, 0)], 1) == 0.5
    assert math.isnan(mean_pass_at_k([], 1))


def test_the_interval_is_that_of_drawing_problems_again():
    counts = [(10, passed) for passed in (0, 0, 1, 3, 10, 10, 7, 2)]
    low, high = bootstrap_interval(counts, 1)
    estimates = np.array([passed / 10 for _, passed in counts])
    draws = np.random.default_rng(1).choice(estimates, size=(20_000, len(estimates))).mean(axis=1)
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    assert bootstrap_interval(counts, 1) == (low, high)


def test_the_interval_of_one_sample_each_is_that_of_the_binomial():
    # 41 of 164: the percentiles of Binomial(164, 0.25) / 164, by its distribution function
    low, high = bootstrap_interval([(1, 1)] * 41 + [(1, 0)] * 123, 1)
    chances = [math.comb(164, n) * 0.25**n * 0.75 ** (164 - n) for n in range(165)]
    bounds = [next(n for n in range(165) if sum(chances[: n + 1]) >= share) / 164 for share in (0.025, 0.975)]
    assert [low, high] == pytest.approx(bounds, abs=1.01 / 164)


def test_the_interval_draws_what_belongs_together_together():
    counts = [(1, 1)] * 3 + [(1, 0)] * 2 + [(1, 1), (1, 0)] + [(1, 0)] * 5
    groups = ["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"] * 5
    rng, sums, sizes = np.random.default_rng(1), np.array([3, 0, 1, 0]), np.array([3, 2, 2, 5])
    draws = rng.integers(4, size=(20_000, 4))
    expected = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    assert bootstrap_interval(counts, 1, groups) == pytest.approx(expected, abs=0.03)
    assert bootstrap_interval(counts, 1, ["a"] * 12) is None
    assert bootstrap_interval(counts, 1, [f"{n}" for n in range(12)]) == pytest.approx(
        bootstrap_interval(counts, 1), abs=1e-9
    )


@given(st.lists(counts, min_size=1, max_size=20))
def test_an_interval_is_one_of_rates_and_there_is_none_where_nothing_varies(cases):
    k = min(n for n, _, _ in cases)
    pairs = [(n, c) for n, c, _ in cases]
    interval = bootstrap_interval(pairs, k)
    if interval is None:
        assert len({pass_at_k(n, c, k) for n, c in pairs}) == 1
    else:
        assert 0 <= interval[0] <= interval[1] <= 1


def test_only_ks_that_the_samples_allow_are_reported():
    assert reported_ks(1) == (1,)
    assert reported_ks(10) == (1, 10)
    assert reported_ks(200) == (1, 10, 100)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_refuses_what_cannot_be(n, c, k):
    with pytest.raises(InvalidValueError):
        pass_at_k(n, c, k)
