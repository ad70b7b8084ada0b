"""What was planted is found or not found, with the right time and heads, on paths that are made up."""

import numpy as np

from mech_pipeline.discovery.clusters import clusters
from mech_pipeline.discovery.formed import discoveries
from mech_pipeline.discovery.truth import looking_heads, recalled
from tests.discovery.test_clusters import KINDS, made_up


def test_a_planted_mechanism_is_recalled_with_its_time_and_its_heads():
    paths = made_up()
    found = discoveries(paths, clusters(paths, 10))
    first = recalled(paths, found, KINDS == 1, 40, {"L0H0"})
    assert first.found
    assert first.pure == 1
    assert first.covered > 0.9
    assert first.step in (50, 60)
    assert first.checkpoints_off == (first.step - 40) // 10
    assert first.heads == 1
    second = recalled(paths, found, KINDS == 2, 90, {"L0H0", "L1H0"})
    assert second.checkpoints_off == -1
    assert second.heads == 0.5
    assert looking_heads(paths, np.flatnonzero(KINDS == 2)) == {"L1H0"}


def test_what_formed_without_looking_or_in_other_tokens_is_not_recalled():
    paths = made_up()
    found = discoveries(paths, clusters(paths, 10))
    assert recalled(paths, found, KINDS == 0, 40, set()).found is False, "words are no discovery"
    assert recalled(paths, found, np.arange(120) % 2 == 0, 40, set()).found is False, "half of a cluster is not enough"
    blind = recalled(paths, found, KINDS == 1, None, set())
    assert (blind.found, blind.checkpoints_off, blind.heads) == (True, None, None)
