"""Classes of heads: who belongs, since when, and what is absent."""

import pytest

from mech_pipeline.mechanisms.detectors.head_classes import IOI_CLASSES, members
from mech_pipeline.mechanisms.registry import DETECTORS

MOVER, NEGATIVE = IOI_CLASSES[:2]
LOOKS, COPIES, ADDS = "ioi_name_mover", "ioi_name_copying", "ioi_direct_effect"


def rows(*, looks, copies, adds, head=0):
    """Scores of one head, a checkpoint every 10 updates."""
    for place, values in enumerate(zip(looks, copies, adds, strict=True)):
        for name, value in zip((LOOKS, COPIES, ADDS), values, strict=True):
            yield 10 * place, 1, head, name, value


def test_every_class_asks_for_detectors_that_exist():
    assert all(each.detectors <= set(DETECTORS) for each in IOI_CLASSES)
    assert len({each.name for each in IOI_CLASSES}) == len(IOI_CLASSES)


def test_a_head_belongs_since_it_never_left_again():
    scores = list(rows(looks=[0.0, 0.9, 0.1, 0.9, 0.9], copies=[1.0] * 5, adds=[2.0] * 5))
    assert members(MOVER, scores) == {(1, 0): 30}
    assert members(NEGATIVE, scores) == {}


def test_what_copies_is_a_name_mover_and_what_suppresses_a_negative_one():
    scores = [*rows(looks=[0.8], copies=[0.7], adds=[3.0]), *rows(looks=[0.8], copies=[-0.7], adds=[-3.0], head=1)]
    assert members(MOVER, scores) == {(1, 0): 0}
    assert members(NEGATIVE, scores) == {(1, 1): 0}


@pytest.mark.parametrize(("looks", "copies", "adds"), [(0.2, 0.9, 3.0), (0.9, 0.2, 3.0), (0.9, 0.9, -0.1)])
def test_one_score_short_of_its_bound_is_enough_to_be_out(looks, copies, adds):
    assert members(MOVER, rows(looks=[looks], copies=[copies], adds=[adds])) == {}


def test_a_head_without_all_the_scores_is_of_no_class():
    assert members(MOVER, [(0, 1, 0, LOOKS, 1.0), (0, 1, 0, COPIES, 1.0)]) == {}


def test_a_head_that_left_at_the_end_is_absent():
    assert members(MOVER, rows(looks=[0.9, 0.9, 0.1], copies=[1.0] * 3, adds=[1.0] * 3)) == {}
