"""Shifts over pairs against scipy's tests and by hand; survival curves against textbook numbers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mech_pipeline.causal.paired import hodges_lehmann, hodges_lehmann_interval, shift, sign_flip_p
from mech_pipeline.causal.survival import Formed, log_rank, median

DIFFERENCES = st.lists(st.integers(-50, 50), min_size=1, max_size=9).map(lambda values: np.array(values, dtype=float))


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_sign_flips_are_those_of_scipy(d):
    if len(d) < 2:
        assert sign_flip_p(d) == 1.0
        return
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False)
    assert sign_flip_p(d) == pytest.approx(exact.pvalue)


def test_many_pairs_draw_their_signs():
    generator = np.random.Generator(np.random.PCG64(0))
    none = sign_flip_p(generator.normal(0, 1, 40))
    some = sign_flip_p(generator.normal(1, 1, 40))
    assert none > 0.05 > 1e-3 > some


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-9, 9), min_size=6, max_size=10, unique_by=lambda x: round(abs(x), 3)))
def test_the_interval_holds_what_the_signed_rank_test_does_not_reject(values):
    d = np.array(values)
    lower, upper = hodges_lehmann_interval(d)
    width = max(upper - lower, 1e-3)
    averages = sorted((one + two) / 2 for one, two in itertools.combinations_with_replacement(d, 2))
    assert lower <= hodges_lehmann(d) <= upper
    for at in (lower - width / 7, upper + width / 7):
        if min(abs(at - each) for each in averages) > 1e-9 and len({round(abs(x - at), 9) for x in d}) == len(d):
            assert stats.wilcoxon(d - at, method="exact").pvalue <= 0.05
    inside = (lower + upper) / 2 + 1e-7
    if len({round(abs(x - inside), 9) for x in d}) == len(d):
        assert stats.wilcoxon(d - inside, method="exact").pvalue > 0.05


def test_five_pairs_exclude_nothing_and_six_do():
    assert hodges_lehmann_interval(np.arange(1.0, 6)) == (None, None)
    assert hodges_lehmann_interval(np.arange(1.0, 7)) == (1.0, 6.0)


def runs(*steps, last=1000):
    return [Formed(seed, last if step is None else step - 10, step) for seed, step in enumerate(steps)]


def test_a_run_that_did_not_form_bounds_its_pair_and_two_say_nothing():
    found = shift(runs(None, 700, None), runs(600, 650, None))
    assert (found.pairs, found.bounds, found.steps) == (2, 1, pytest.approx(np.median([400, 50, 225])))
    assert shift(runs(None), runs(None)) is None
    assert shift([Formed(0, 10, 20)], [Formed(1, 10, 20)]) is None, "no seed in common"


def test_p_cannot_be_smaller_than_pairs_allow():
    found = shift(runs(700, 710, 720, 730), runs(600, 600, 600, 600))
    assert found.p == found.smallest_p == 2 / 2**4


def test_log_rank_and_median_of_a_textbook():
    """Freireich's leukaemia data (Cox 1972): weeks in remission; log-rank chi-squared 16.79, medians 23 and 8."""
    treated = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    some = [Formed(i, 0, week) for i, week in enumerate(treated[0])] + [
        Formed(i + 9, week, None) for i, week in enumerate(treated[1])
    ]
    others = [Formed(i, 0, week) for i, week in enumerate(placebo)]
    assert (median(some).step, median(others).step) == (23, 8)
    assert log_rank(some, others) == pytest.approx(stats.chi2.sf(16.79, 1), rel=0.02)


def test_a_median_beyond_what_was_trained_is_none():
    assert median(runs(None, None, 500)).step is None
    assert log_rank(runs(None, None), runs(None)) is None
