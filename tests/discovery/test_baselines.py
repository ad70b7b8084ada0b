"""Baselines find what they can see, and not what they cannot."""

import numpy as np
import pytest

from mech_pipeline.discovery.baselines import bins, compressed_share, last_window, loss_curves, random_like
from mech_pipeline.discovery.clusters import clusters
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.discovery.scoring import agreement

KINDS = np.repeat([0, 1, 2], 40)


def made_up(seed=0):
    """Two kinds fall together through different components; the third falls later, and moves as the first at the end."""
    generator = np.random.default_rng(seed)
    changes = 0.005 * generator.normal(size=(120, 8, 4))
    changes[:40, 2, 0] -= 1.0
    changes[40:80, 2, 1] -= 1.0
    changes[80:, 5, 2] -= 1.0
    changes[:40, 7, 3] -= 0.2
    changes[80:, 7, 3] -= 0.2
    changes[40:80, 7, 1] -= 0.2
    losses = 5 + np.concatenate([np.zeros((120, 1)), changes.sum(2).cumsum(1)], axis=1)
    return Paths(changes, losses, np.arange(9) * 10, ("a", "L0H0.Q", "L0H0.K", "d"))


def test_curves_do_not_see_components_and_the_end_does_not_see_time():
    paths = made_up()
    assert agreement(KINDS, clusters(paths, 10, "paths")).v_measure == pytest.approx(1)
    curves, end = agreement(KINDS, loss_curves(paths, 3)), agreement(KINDS, last_window(paths, 3))
    assert curves.v_measure < 0.9
    assert end.v_measure < 0.9
    together = loss_curves(paths, 2)
    assert agreement((KINDS == 2).astype(int), together).v_measure == 1


def test_windows_after_training_stopped_are_no_last_window():
    paths = made_up()
    paths.changes[:, 3:] = 0
    assert agreement(KINDS[:80], last_window(paths, 2)[:80]).v_measure == 1


def test_contexts_that_repeat_compress_further():
    generator = np.random.default_rng(0)
    random = [generator.integers(0, 5000, 60).tolist() for _ in range(10)]
    repeated = [row[:10] * 6 for row in random]
    share = compressed_share(random + repeated)
    assert share[:10].min() > share[10:].max()
    assert bins(share, 2).tolist() == [1] * 10 + [0] * 10


def test_random_clusters_have_the_same_sizes_and_know_nothing():
    labels = np.repeat([-1, 0, 1, 2], 60)
    shuffled = random_like(labels)
    assert np.bincount(shuffled + 1).tolist() == [60] * 4
    assert abs(agreement(labels + 1, shuffled).adjusted_rand) < 0.05
