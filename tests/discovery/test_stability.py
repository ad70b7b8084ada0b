"""Clusters that stay the same, that are torn apart, and that only chance made."""

from itertools import permutations

import numpy as np
import pytest

from mech_pipeline.discovery.clusters import clusters
from mech_pipeline.discovery.stability import matched, over_draws
from tests.discovery.test_clusters import made_up


def test_the_same_clusters_under_other_names_match_and_torn_ones_match_in_part():
    labels = np.repeat([0, 1, 2, -1], 20)
    assert matched(labels, np.array([2, 0, 1, -1])[labels]) == 1
    torn = np.where(np.arange(80) < 10, 3, labels)
    assert matched(labels, torn) == pytest.approx((0.5 + 1 + 1) / 4), "the fourth has no partner"
    assert matched(labels, torn) == matched(torn, labels)


def test_matching_is_the_best_of_all_matchings():
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.integers(-1, 4, (2, 30))
        best = max(
            sum(
                np.sum((one == a) & (other == b)) / max(np.sum((one == a) | (other == b)), 1)
                for a, b in enumerate(order)
            )
            for order in permutations(range(4))
        )
        assert matched(one, other) == pytest.approx(best / 4)


def test_where_nothing_is_found_nothing_is_stable():
    none, all_one = np.full(10, -1), np.zeros(10, dtype=int)
    assert matched(none, none) is None
    assert matched(none, all_one) == 0


def test_planted_clusters_survive_other_draws_and_random_ones_do_not():
    paths = made_up()
    found = over_draws(paths, lambda drawn: clusters(drawn, 10))
    assert len(found) == 5
    assert min(found) > 0.8
    generator = np.random.default_rng(0)
    by_chance = over_draws(paths, lambda drawn: generator.integers(0, 3, len(drawn)))
    assert max(by_chance) < 0.4
