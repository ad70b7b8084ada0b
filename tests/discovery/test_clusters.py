"""Clusters, and what formed in them, on paths that are made up, so that the truth is known."""

import dataclasses

import numpy as np
import pytest

from mech_pipeline.discovery.clusters import clusters, hdbscan, skills
from mech_pipeline.discovery.formed import LOCKED, discoveries, formed
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.discovery.scoring import agreement
from mech_pipeline.errors import MechError

COMPONENTS = ("embedding", "L0H0.Q", "L0H0.O", "L1H0.K", "L1H0.O", "unembedding")
STEPS = np.arange(0, 130, 10)
KINDS = np.repeat([0, 1, 2, 3], 30)


def made_up(seed=0, looking=True):
    """Four kinds: words learnt at once, two that heads bring at steps 50 and 80, and tokens that nothing moves much."""
    generator = np.random.default_rng(seed)
    changes = 0.01 * generator.normal(size=(120, 12, 6))
    changes[:30, 0:2, [0, 5]] -= 0.8
    changes[30:60, 4:6, 1 if looking else 2] -= 0.6
    changes[30:60, 4:6, 4] -= 0.2
    changes[60:90, 7:9, 3 if looking else 4] -= 0.5
    changes[90:] += 0.05 * generator.normal(size=(30, 12, 6))
    losses = 5 + np.concatenate([np.zeros((120, 1)), changes.sum(2).cumsum(1)], axis=1)
    return Paths(changes, losses, STEPS, COMPONENTS)


@pytest.mark.parametrize("by", ["courses", "paths", "shares"])
def test_kinds_that_formed_in_their_own_way_are_found(by):
    found = clusters(made_up(), 10, by)
    assert agreement(KINDS, found).homogeneity > 0.95
    assert agreement(KINDS[:90], found[:90]).v_measure > 0.95


def test_courses_tell_tokens_apart_that_lost_as_much_at_once_only_if_one_lost_it_by_looking():
    paths = made_up()
    changes = paths.changes[:60].copy()
    changes[:, :] = 0.01 * np.random.default_rng(4).normal(size=changes.shape)
    changes[:30, 5, 0] -= 1  # embedding
    changes[30:, 5, 3] -= 1  # keys
    losses = 5 + np.concatenate([np.zeros((60, 1)), changes.sum(2).cumsum(1)], axis=1)
    same = Paths(changes, losses, STEPS, COMPONENTS)
    assert agreement(KINDS[:60], clusters(same, 10)).v_measure > 0.95
    changes[30:, 5, 3] += 1
    changes[30:, 5, 4] -= 1  # outputs: another component, and no looking
    assert agreement(KINDS[:60], clusters(same, 10)).v_measure < 0.5
    assert agreement(KINDS[:60], clusters(same, 10, "paths")).v_measure > 0.95


def test_only_what_was_gained_by_looking_is_a_discovery_and_its_time_and_components_are_right():
    paths = made_up()
    found = [one for one in discoveries(paths, clusters(paths, 10)) if one.is_discovery]
    assert [one.begins.value for one in found] == [40, 70]
    assert all(one.begins.low <= one.begins.value <= one.begins.high for one in found)
    assert found[0].half.value in (50, 60), "half of it is there at 50, up to noise"
    assert found[1].half.value == 80
    assert [name for name, _ in found[0].components] == ["L0H0.Q", "L1H0.O"]
    assert found[1].components[0][0] == "L1H0.K"
    assert found[0].drop.value == pytest.approx(1.6, abs=0.05)
    assert found[0].hidden, "all tokens together gained a quarter of it"
    still = discoveries(made_up(looking=False), clusters(made_up(looking=False), 10))
    assert still
    assert not any(one.is_discovery for one in still)


def test_the_threshold_is_held_against_the_lower_end_of_the_interval():
    paths = made_up()
    few = formed(paths, np.array([30, 31, 91]))
    assert few.looking.value > LOCKED > few.looking.low
    assert not few.is_discovery


def test_a_token_with_two_skills_is_a_sum_of_both():
    paths = made_up()
    changes = paths.changes.copy()
    changes[0] = (changes[35] + changes[65]) / 2
    both = dataclasses.replace(paths, changes=changes)
    have, bring = skills(both, 3)
    assert bring.sum((1, 2)) == pytest.approx(np.ones(3))
    which = [int(have[rows].mean(0).argmax()) for rows in (slice(1, 30), slice(30, 60), slice(60, 90))]
    assert sorted(which) == [0, 1, 2], "each kind has a skill of its own"
    assert have[0, which[1]] > 0.5
    assert have[0, which[2]] > 0.3
    assert have[40, which[2]] < 0.1


def test_clusters_do_not_depend_on_the_order_of_tokens():
    points = np.random.default_rng(1).normal(size=(80, 3)) + np.repeat([[0.0], [6.0]], 40, axis=0)
    order = np.random.default_rng(2).permutation(80)
    assert agreement(hdbscan(points, 8)[order], hdbscan(points[order], 8)).adjusted_rand == 1


def test_one_cloud_is_no_cluster():
    points = np.random.default_rng(3).normal(size=(60, 2))
    labels = hdbscan(points, 20)
    assert (labels == labels[0]).all() or (labels == -1).mean() > 0.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: dataclasses.replace(p, changes=p.changes[:12], losses=p.losses[:12]), "12 probe tokens are too few"),
        (
            lambda p: dataclasses.replace(p, changes=p.changes * np.nan),
            "120 probe tokens have losses that are no numbers",
        ),
        (lambda p: dataclasses.replace(p, changes=p.changes * 0), "no component moved"),
        (lambda p: dataclasses.replace(p, changes=p.changes[:, :2]), "2 windows"),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_one_line(change, words):
    with pytest.raises(MechError, match=words) as caught:
        clusters(change(made_up()), 10)
    assert "\n" not in str(caught.value.problem)


def test_agreement_is_what_it_is_in_the_literature():
    kinds = np.array([0, 0, 0, 1, 1, 1])
    assert agreement(kinds, kinds).adjusted_rand == agreement(kinds, kinds).v_measure == 1
    # Hubert & Arabie by hand: together 2, kinds 6, clusters 3, of 15 pairs
    split = agreement(kinds, np.array([0, 0, 1, 1, 2, 2]))
    assert split.adjusted_rand == pytest.approx((2 - 6 * 3 / 15) / (4.5 - 6 * 3 / 15))
    assert agreement(kinds, np.full(6, -1)).clustered == 0
    assert agreement(kinds, np.zeros(6, dtype=int)).homogeneity == 0
