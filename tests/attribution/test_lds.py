"""Linear datamodeling score: known on paper, the same as SciPy's, and never a number where there is none."""

import numpy as np
import pytest
from scipy import stats

from mech_pipeline.attribution.retraining.lds import (
    calibration,
    linear_datamodeling_score,
    random_measures,
    score_difference,
    spread,
    top_measures,
)
from mech_pipeline.attribution.retraining.removals import asked_removals, random_removal, removal_size, top_removal
from mech_pipeline.spec.analysis import Influence, Retraining

DRAWN = np.random.Generator(np.random.PCG64(3))
PREDICTED = DRAWN.normal(size=40)
MEASURED = 0.8 * PREDICTED - 0.25 + 0.5 * DRAWN.normal(size=40)


def test_the_score_is_spearmans_rank_correlation():
    found = linear_datamodeling_score(PREDICTED, MEASURED)
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(PREDICTED, MEASURED).statistic, rel=1e-12)
    assert found.n == 40


def test_the_difference_of_two_scores_is_of_the_same_removals():
    worse = PREDICTED + 0.4 * np.random.Generator(np.random.PCG64(5)).normal(size=40)
    one, other = (linear_datamodeling_score(each, MEASURED) for each in (PREDICTED, worse))
    found = score_difference(PREDICTED, worse, MEASURED)
    assert None not in (found, one, other)
    assert found.value == pytest.approx(one.value - other.value, abs=1e-12)
    assert found.lower < found.value < found.upper
    apart = (one.upper - one.lower) + (other.upper - other.lower)
    assert found.upper - found.lower < 0.6 * apart, "paired: narrower than what two separate intervals allow"
    same = score_difference(PREDICTED, PREDICTED, MEASURED)
    assert same is not None
    assert (same.value, same.lower, same.upper) == (0, 0, 0)
    assert score_difference(PREDICTED, np.ones(40), MEASURED) is None


def test_ties_share_their_rank():
    some, others = np.array([0.0, 0.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.0, 5.0])
    found = linear_datamodeling_score(some, others)
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(some, others).statistic, rel=1e-12)


def test_the_interval_is_that_of_scipys_bootstrap():
    found = linear_datamodeling_score(PREDICTED, MEASURED)
    peer = stats.bootstrap(
        (PREDICTED, MEASURED),
        lambda one, other: stats.spearmanr(one, other).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    # Two samples of 2000 resamples: ends of the interval scatter by some 0.01.
    assert found is not None
    assert (found.lower, found.upper) == pytest.approx((peer.low, peer.high), abs=0.03)
    assert found.lower < found.value < found.upper


def test_intervals_repeat_themselves_and_shrink_with_more_removals():
    few, many = (linear_datamodeling_score(PREDICTED[:n], MEASURED[:n]) for n in (10, 40))
    assert few == linear_datamodeling_score(PREDICTED[:10], MEASURED[:10])
    assert many.upper - many.lower < few.upper - few.lower


@pytest.mark.parametrize(
    ("predicted", "measured"),
    [([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), ([], [])],
    ids=["two removals", "predictions all alike", "nothing moved", "nothing retrained"],
)
def test_what_is_undefined_is_left_out(predicted, measured):
    predicted, measured = np.array(predicted), np.array(measured)
    assert linear_datamodeling_score(predicted, measured) is None
    measures = {measure.metric: measure for measure in random_measures(predicted, measured)}
    assert "lds" not in measures
    assert ("slope" in measures) == (len(predicted) > 1 and np.ptp(predicted) > 0)
    assert all(np.isfinite(measure.value) for measure in measures.values())


def test_calibration_recovers_a_line():
    line = calibration(PREDICTED, 0.7 * PREDICTED - 0.25)
    assert line is not None
    assert (line.slope, line.offset) == pytest.approx((0.7, -0.25))
    assert calibration(np.full(3, 0.1), np.array([1.0, 2.0, 4.0])) is None, "0.1 − mean is not quite 0"
    assert spread(np.full(3, 0.1)) == 0.0


def test_a_top_removal_is_placed_among_random_ones():
    random = np.array([-0.2, -0.3, -0.4])
    found = {m.metric: (m.value, m.n) for m in top_measures(-1.0, -10.8, random)}
    assert found["query_loss_difference"] == (-1.0, 1)
    assert found["predicted_difference"] == (-10.8, 1)
    assert found["query_loss_z"] == (pytest.approx(-7.0), 3)
    assert "query_loss_z" not in {m.metric for m in top_measures(-1.0, -10.8, np.array([]))}
    assert "query_loss_z" not in {m.metric for m in top_measures(-1.0, -10.8, np.array([0.1, 0.1]))}


def test_random_removals_are_distinct_examples_that_were_seen():
    seen = np.arange(100, 300)
    sets = [random_removal(seen, 0.05, number, seed=0) for number in range(40)]
    for drawn in sets:
        assert len(set(drawn.tolist())) == 10
        assert set(drawn.tolist()) <= set(seen.tolist())
    assert len({tuple(drawn.tolist()) for drawn in sets}) == 40
    assert (random_removal(seen, 0.05, 3, seed=0) == sets[3]).all(), "more subsets add to those that are there"
    assert (random_removal(seen, 0.05, 3, seed=1) != sets[3]).any()


def test_the_top_is_taken_from_what_was_seen():
    influence = np.array([5.0, -9.0, 3.0, 4.0, 0.0])
    assert top_removal(np.array([1, 2, 3, 4]), influence, 0.5).tolist() == [2, 3]
    assert removal_size(1, 0.5) == 1


def test_what_is_asked_for_has_a_name_each():
    influence = Influence(
        mechanisms=("a", "b"),
        methods=("adjoint", "ekfac"),
        retraining=Retraining(fractions=(0.005, 0.05), subsets=3, top=(0.05,)),
    )
    names = [removal.name for removal in asked_removals(influence)]
    assert names[:2] == ["none", "top-0.05-adjoint-a"]
    assert "random-0.005-2" in names
    assert len(names) == len(set(names)) == 1 + 4 + 6
    assert asked_removals(influence.model_copy(update={"mechanisms": ()})) == []
    assert asked_removals(influence.model_copy(update={"retraining": None})) == []
