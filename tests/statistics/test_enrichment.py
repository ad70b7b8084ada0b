"""What is more frequent among chosen observations: against permutations, scipy, and a false finding rate."""

import numpy as np
from scipy import sparse, stats

from mech_pipeline.statistics.enrichment import SMALLEST, enrichment, holm
from mech_pipeline.statistics.overlap import overlap

GENERATOR = np.random.default_rng(0)


def features(n_features=40, n=300):
    return sparse.csr_array((GENERATOR.random((n_features, n)) < 0.3).astype(np.int64))


def test_without_strata_it_is_fishers_test():
    has, chosen = features(), np.arange(300) < 30
    found = enrichment(has, chosen, np.zeros(300, dtype=np.int64))
    below = stats.hypergeom.cdf(found.chosen, 300, found.everywhere, 30)
    above = stats.hypergeom.sf(found.chosen - 1, 300, found.everywhere, 30)
    # the transform leaves 1e-15, sums of logarithms 1e-12
    np.testing.assert_allclose(found.p, np.minimum(1, 2 * np.minimum(below, above)), atol=1e-9)
    np.testing.assert_allclose(found.expected, found.everywhere * 30 / 300)


def test_within_strata_it_is_what_permuting_gives():
    has, chosen, strata = features(4), np.arange(300) < 30, np.arange(300) % 3 + np.arange(300) // 200
    found = enrichment(has, chosen, strata)
    draws = []
    for _ in range(4000):
        drawn = np.zeros(300, dtype=bool)
        for stratum in np.unique(strata):
            members = GENERATOR.permutation(np.flatnonzero(strata == stratum))
            drawn[members[: chosen[members].sum()]] = True
        draws.append(has @ drawn.astype(np.int64))
    null = np.array(draws)
    tails = np.minimum((null <= found.chosen).mean(0), (null >= found.chosen).mean(0))
    # four standard errors of a share of 4000 draws, doubled
    np.testing.assert_allclose(found.p, np.minimum(1, 2 * tails), atol=2 * 4 * 0.5 / 4000**0.5)
    np.testing.assert_allclose(found.expected, null.mean(0), atol=4 * 3 / 4000**0.5)


def test_a_feature_of_a_stratum_is_not_taken_for_one_of_the_choice():
    strata = (np.arange(300) >= 100).astype(np.int64)
    chosen = np.arange(300) < 30  # all of the first stratum
    has = sparse.csr_array((strata == 0)[None, :].astype(np.int64))
    assert enrichment(has, chosen, strata).p[0] == 1
    assert enrichment(has, chosen, np.zeros(300, dtype=np.int64)).p[0] == SMALLEST
    assert enrichment(has, chosen, np.zeros(300, dtype=np.int64)).log_odds[0] > 3


def test_holm_seldom_names_anything_where_there_is_nothing():
    found = 0
    for _ in range(200):
        chosen = np.zeros(300, dtype=bool)
        chosen[GENERATOR.permutation(300)[:30]] = True
        found += bool((holm(enrichment(features(), chosen, np.zeros(300, dtype=np.int64)).p) < 0.05).any())
    assert found <= 20, "10 of 200 are allowed; counts are whole, so it finds fewer"


def test_tops_of_equal_opposite_and_unrelated_rankings():
    values = GENERATOR.permutation(1000).astype(np.float64)
    same, opposite = overlap(values, values, 0.05), overlap(values, -values, 0.05)
    assert (same.share, same.by_chance, same.correlation) == (1.0, 0.05, 1.0)
    assert (opposite.share, opposite.p, opposite.correlation) == (0.0, 1.0, -1.0)
    unrelated = overlap(values, GENERATOR.permutation(values), 0.05)
    assert unrelated.p > 1e-4
    assert same.p < 1e-30
