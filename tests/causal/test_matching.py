"""Choices and matches against what can be worked out by hand or by trying everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.causal.choosing import chosen_count, extreme, mean_rank
from mech_pipeline.causal.doing import windows
from mech_pipeline.causal.matching import balance, matched_examples
from mech_pipeline.data.example_weights import LAST, ExampleWeights
from mech_pipeline.errors import MechError
from mech_pipeline.spec.choice import Choice


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def test_the_extreme_ones_are_chosen_in_order():
    scores = np.array([5.0, -1.0, 7.0, 7.0, 0.0])
    assert extreme(scores, np.arange(5), 3, "top").tolist() == [2, 3, 0]
    assert extreme(scores, np.array([0, 1, 4]), 2, "bottom").tolist() == [1, 4]


@pytest.mark.parametrize(("share", "count"), [(0.001, None), (None, 10), (0.999, None), (None, 11)])
def test_a_choice_of_nothing_or_of_everything_is_refused(share, count):
    with pytest.raises(MechError, match="of 10 examples that can be chosen from"):
        chosen_count(10, share, count)


def test_pooled_ranks_do_not_see_units():
    one, other = np.array([0.1, 0.3, 0.2]), np.array([10.0, 30.0, 20.0])
    assert mean_rank([one, other]).tolist() == mean_rank([other, other]).tolist() == [0.0, 1.0, 0.5]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), chosen=st.integers(1, 8), others=st.integers(8, 30), kinds=st.integers(1, 2))
def test_matches_are_others_of_the_same_kind_each_taken_once(seed, chosen, others, kinds):
    draw = generator(seed)
    groups = np.concatenate([np.zeros(chosen, dtype=int), draw.integers(0, kinds, others)])
    groups[chosen : chosen + 8] = 0  # enough of the first kind
    values = {"loss": draw.normal(size=len(groups)), "flat": np.ones(len(groups))}
    mine = np.arange(chosen)
    found = matched_examples(mine, np.arange(len(groups)), groups, values, generator(seed))
    assert len(set(found.tolist())) == chosen
    assert not set(found.tolist()) & set(mine.tolist())
    assert (groups[found] == groups[mine]).all()
    again = matched_examples(mine, np.arange(len(groups)), groups, values, generator(seed))
    assert (found == again).all()


def test_the_first_to_choose_gets_the_nearest_and_a_lone_one_the_best_there_is():
    draw = generator(3)
    values = {"loss": draw.normal(size=40), "length": draw.normal(size=40)}
    (found,) = matched_examples(np.array([7]), np.arange(40), np.zeros(40, dtype=int), values, generator())
    others = np.setdiff1d(np.arange(40), [7])
    distance = sum(((v[others] - v[7]) / v[others].std()) ** 2 for v in values.values())
    assert found == others[np.argmin(distance)]


def test_matching_balances_what_differed():
    draw = generator(1)
    loss = draw.normal(size=2000)
    chosen = np.argsort(-loss + draw.normal(size=2000))[:100]
    matched = matched_examples(chosen, np.arange(2000), np.zeros(2000, dtype=int), {"loss": loss}, generator())
    (found,) = balance(chosen, matched, np.arange(2000), {"loss": loss})
    assert abs(found.before) > 1
    assert found.is_balanced
    by_hand = (loss[chosen].mean() - loss[matched].mean()) / np.sqrt((loss[chosen].var() + loss[matched].var()) / 2)
    assert found.difference == pytest.approx(by_hand)


def test_too_few_others_of_a_kind_are_named():
    groups = np.array([0, 0, 0, 1, 1, 1])
    with pytest.raises(MechError, match="2 examples of one kind are to be matched, and only 1 others"):
        matched_examples(np.array([0, 1]), np.arange(6), groups, {}, generator())


@pytest.mark.parametrize(
    "fields",
    [
        {"do": "delete"},
        {"do": "duplicate", "window": "before_target"},
        {"do": "weight", "weight": 0.25, "window": "after_target"},
        {"do": "delete", "window": (3, 8)},
        {"do": "delete", "window": (3, 8), "outside": True},
        {"do": "delete", "window": (0, 8), "outside": True},
        {"do": "delay", "until": 6},
    ],
)
def test_windows_give_each_update_the_weight_that_was_asked_for(fields):
    choice, target = Choice(by="random", count=1, **fields), 10
    spans = windows(choice, target)
    weights = ExampleWeights(
        np.zeros(len(spans), dtype=np.int64),
        np.array([w for _, _, w in spans]),
        np.array([first for first, _, _ in spans]),
        np.array([last for _, last, _ in spans]),
    )
    done = {"delete": 0.0, "duplicate": 2.0, "weight": 0.25, "delay": 0.0}[choice.do]
    for update in range(20):
        inside = {
            None: choice.do != "delay" or update < 6,
            "before_target": update < target,
            "after_target": update >= target,
            (3, 8): 3 <= update <= 8,
            (0, 8): 0 <= update <= 8,
        }[choice.window]

        (weight,) = weights.at(update, torch.zeros(1, dtype=torch.long)).tolist()
        assert weight == (done if inside != choice.outside else 1.0), update
    assert all(0 <= first <= last <= LAST for first, last, _ in spans)
