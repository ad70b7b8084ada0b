"""Comparisons over all arms, doses, power and calibration, against brute force, scipy and by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mech_pipeline.causal.arms import Pair
from mech_pipeline.causal.comparing import compare
from mech_pipeline.causal.dose import trend
from mech_pipeline.causal.predicted import calibration
from mech_pipeline.causal.survival import Formed, median
from mech_pipeline.statistics.power import detectable, power

PAIRS = [Pair("late", "base"), Pair("same", "base"), Pair("never", "base"), Pair("late", "same")]


def runs(*steps, last=1000):
    return [Formed(seed, last if step is None else step - 10, step) for seed, step in enumerate(steps)]


def formed(seeds=10):
    base = [600 + 10 * (seed % 3) for seed in range(seeds)]
    return {
        "base": runs(*base),
        "late": runs(*(step + 60 + 10 * (seed % 4) for seed, step in enumerate(base))),
        "same": runs(*(step + (10, -10)[seed % 2] for seed, step in enumerate(base))),
        "never": runs(*[None] * seeds),
    }


def test_ten_pairs_that_go_one_way_are_a_claim_after_holm_and_six_could_not_be_among_many():
    late, same, never, matched = compare(PAIRS, formed())
    assert late.shift.p == 2 / 2**10
    assert late.p_holm == pytest.approx(4 * 2 / 2**10) == late.smallest_p_holm
    assert late.relative == pytest.approx(late.shift.steps / 610)
    assert same.p_holm == 1.0
    assert never.shift.bounds == 10
    assert never.shift.steps == 390, "at least as late as the end of training"
    assert matched.reference == "same"
    few = compare([*PAIRS, *(Pair("late", "base") for _ in range(9))], formed(6))
    assert all(each.p_holm > 0.05 for each in few)
    assert few[0].smallest_p_holm == pytest.approx(13 * 2 / 2**6)
    assert few[0].detectable is None, "no shift, however large, could have been shown"


def test_one_seed_is_no_claim_and_nothing_that_formed_is_no_shift():
    one = compare(PAIRS, formed(1))
    assert [each.shift.p for each in one] == [1.0] * 4
    assert all(each.shift.lower is None and each.detectable is None for each in one)
    (nothing,) = compare([Pair("a", "b")], {"a": runs(None, None), "b": runs(None, None)})
    assert nothing.shift is None
    assert nothing.p_log_rank is None
    assert nothing.p_holm is None
    (lost,) = compare([Pair("a", "b")], {"a": [], "b": runs(500, 510)})
    assert lost.shift is None


def test_a_comparison_without_pairs_counts_in_the_family():
    with_it = compare([Pair("late", "base"), Pair("gone", "base")], formed() | {"gone": []})
    assert with_it[0].p_holm == pytest.approx(2 * with_it[0].shift.p)


def test_an_arm_that_never_forms_has_no_median():
    found = median(runs(None, None, None))
    assert (found.step, found.lower, found.upper) == (None, None, None)


def test_the_trend_is_that_of_all_orders_within_seeds():
    doses = [runs(600, 610, 590), runs(640, 600, 600), runs(650, 620, 640), runs(None, 700, 720)]
    found = trend(doses)
    steps = np.array([[np.inf if run.upper is None else run.upper for run in dose] for dose in doses]).T
    ranks = stats.rankdata(steps, axis=1)
    assert found.statistic == (ranks * np.arange(1, 5)).sum()
    every = list(itertools.permutations((1, 2, 3, 4)))
    sums = [sum(p * (j + 1) for j, p in enumerate(order)) for order in every]
    null = np.array([sum(three) for three in itertools.product(sums, repeat=3)])
    ends = [np.mean(null >= found.statistic), np.mean(null <= found.statistic)]
    assert found.p == pytest.approx(min(1.0, 2 * min(ends)))
    assert found.expected == null.mean()
    falling = trend(doses[::-1])
    assert falling.p == pytest.approx(found.p)
    assert falling.statistic < falling.expected


def test_a_trend_needs_two_seeds_and_three_doses():
    assert trend([runs(1, 2), runs(3, 4)]) is None
    assert trend([runs(10), runs(20), runs(30)]) is None


def test_power_is_how_often_a_paired_test_finds_the_shift():
    generator = np.random.Generator(np.random.PCG64(1))
    drawn = generator.normal(9.0, 10.0, (20000, 10))
    found = np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue <= 0.02)
    assert power(9.0, 10.0, 10, 0.02) == pytest.approx(found, abs=0.012), "three standard errors"
    shift = detectable(10.0, 10, 0.02)
    assert power(shift, 10.0, 10, 0.02) == pytest.approx(0.8)


def test_calibration_is_that_of_scipy_and_its_interval_resamples_seeds():
    generator = np.random.Generator(np.random.PCG64(2))
    seeds = np.repeat(np.arange(8), 5)
    predicted = generator.normal(size=40)
    measured = 0.3 * predicted - 0.2 + generator.normal(scale=0.1, size=40)
    rank, slope, offset = calibration(predicted, measured, seeds)
    line = stats.linregress(predicted, measured)
    assert rank.value == pytest.approx(stats.spearmanr(predicted, measured).statistic)
    assert (slope.value, offset.value) == (pytest.approx(line.slope), pytest.approx(line.intercept))
    assert slope.lower < 0.3 < slope.upper
    assert slope.upper - slope.lower == pytest.approx(4 * line.stderr, rel=0.6)
    assert calibration(predicted[:5], measured[:5], seeds[:5])[0].lower is None, "one seed has no interval"
    assert calibration(predicted[:2], measured[:2], seeds[:2])[0].value is None
    assert calibration(np.zeros(9), measured[:9], seeds[:9])[0].value is None, "without spread there is no rank"
