import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import InvalidValueError
from codellm_eval.passk import mean_pass_at_k, pass_at_k, reported_ks

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


def test_only_ks_that_the_samples_allow_are_reported():
    assert reported_ks(1) == (1,)
    assert reported_ks(10) == (1, 10)
    assert reported_ks(200) == (1, 10, 100)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_refuses_what_cannot_be(n, c, k):
    with pytest.raises(InvalidValueError):
        pass_at_k(n, c, k)
