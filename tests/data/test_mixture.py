"""Mixture over time: exact shares, no early repeats, a pure function of seed and update; mistakes are named."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.data.mixture import GroupCounts
from mech_pipeline.data.order import Order, examples_at_step
from mech_pipeline.errors import MechError
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.mixture import Phase, members
from tests.support.tiny import MINIMAL

WEIGHTS = st.sampled_from([0, 1, 2, 3, 5, 0.1, 0.25, 13, 0.0123])


@st.composite
def mixtures(draw):
    groups = [f"g{number}" for number in range(draw(st.integers(1, 6)))]
    begins = [0, *sorted(draw(st.sets(st.integers(1, 40), max_size=4)))]
    weights = st.fixed_dictionaries(dict.fromkeys(groups, WEIGHTS)).filter(lambda w: any(w.values()))
    return tuple(Phase(begin=begin, weights=draw(weights)) for begin in begins)


def ideal_totals(mixture, batch, names, steps):
    """Σ_{s<t} batch · share, in exact fractions, the slow way."""
    totals = [[Fraction(0)] * len(names)]
    for step in range(steps):
        weights = [phase.weights for phase in mixture if phase.begin <= step][-1]
        written = {name: Fraction(str(weight)) for name, weight in weights.items()}
        shares = [written.get(name, Fraction(0)) / sum(written.values()) for name in names]
        totals.append([total + batch * share for total, share in zip(totals[-1], shares, strict=True)])
    return totals


@given(mixture=mixtures(), batch=st.sampled_from([1, 2, 3, 8, 32]))
@settings(deadline=None, max_examples=150)
@pytest.mark.slow
def test_shares_are_right_to_within_one_example_after_every_update(mixture, batch):
    counts = GroupCounts(mixture, batch)
    given_out = np.array([counts.before(step) for step in range(81)])
    assert (np.diff(given_out, axis=0) >= 0).all()
    assert (np.diff(given_out, axis=0).sum(axis=1) == batch).all()
    for row, ideal in zip(given_out.tolist(), ideal_totals(mixture, batch, counts.names, 80), strict=True):
        assert all(abs(count - exact) < 1 for count, exact in zip(row, ideal, strict=True))


def test_a_million_updates_are_counted_exactly():
    counts = GroupCounts((Phase(begin=0, weights={"a": 0.3, "b": 0.5, "c": 0.2}),), 32)
    assert counts.before(1_000_000).tolist() == [9_600_000, 16_000_000, 6_400_000]
    assert abs(counts.before(777_777) - np.array([0.3, 0.5, 0.2]) * 32 * 777_777).max() < 1


def test_whole_shares_come_whole_in_every_batch():
    counts = GroupCounts((Phase(begin=0, weights={"a": 1, "b": 3}), Phase(begin=5, weights={"b": 1, "a": 1})), 8)
    assert np.diff([counts.before(step) for step in range(8)], axis=0).tolist() == [[2, 6]] * 5 + [[4, 4]] * 2


GROUPS = {"a": np.arange(0, 7), "b": np.arange(7, 30), "c": np.arange(30, 33)}
MIXTURE = (Phase(begin=0, weights={"a": 1, "b": 1}), Phase(begin=9, weights={"b": 1, "c": 2, "a": 0.5}))


def test_no_example_of_a_group_repeats_before_the_group_is_exhausted():
    order = Order(3, GROUPS, MIXTURE, 5)
    seen = np.concatenate([order.at_step(step) for step in range(60)])
    for rows in GROUPS.values():
        stream = seen[np.isin(seen, rows)]
        assert len(stream) > 2 * len(rows)
        for begin in range(0, len(stream) - len(rows), len(rows)):
            assert sorted(stream[begin : begin + len(rows)]) == rows.tolist()


@given(steps=st.lists(st.integers(0, 200), min_size=1, max_size=8))
@settings(deadline=None, max_examples=30)
def test_any_update_can_be_asked_for_first_and_again(steps):
    whole = Order(3, GROUPS, MIXTURE, 5)
    for step in range(201):
        whole.at_step(step)
    fresh = Order(3, GROUPS, MIXTURE, 5)
    for step in steps:
        assert (fresh.at_step(step) == whole.at_step(step)).all()


def test_seeds_and_groups_have_streams_of_their_own():
    first, second = Order(0, GROUPS, MIXTURE, 8), Order(1, GROUPS, MIXTURE, 8)
    assert (first.at_step(0) != second.at_step(0)).any()
    twins = Order(0, {"a": np.arange(20), "b": np.arange(20)}, (Phase(begin=0, weights={"a": 1, "b": 1}),), 40)
    assert (twins.at_step(0)[:20] != twins.at_step(0)[20:]).any()


def test_without_a_mixture_the_order_is_the_one_of_the_seed():
    order = Order(5, GROUPS, (), 4)
    for step in (0, 7, 8, 40):
        assert (order.at_step(step) == examples_at_step(5, step, pool_size=33, batch=4)).all()


def test_the_order_of_earlier_runs_never_changes():
    """Written down from the first version: checkpoints of old runs rest on it."""
    assert examples_at_step(0, 2, pool_size=10, batch=4).tolist() == [7, 0, 4, 6]
    assert examples_at_step(7, 0, pool_size=5, batch=11).tolist() == [3, 1, 0, 2, 4, 1, 4, 2, 3, 0, 1]


def test_a_group_without_examples_is_named():
    with pytest.raises(MechError, match="group 'c' of the mixture has no examples in the pool"):
        Order(0, GROUPS | {"c": np.arange(0)}, MIXTURE, 4)


def test_groups_are_kinds_parts_or_both():
    names = ["code/plain", "code/tiled", "prose/plain"]
    assert members("plain", names) == {"code/plain", "prose/plain"}
    assert members("prose", names) == {"prose/plain"}
    assert members("code/tiled", names) == {"code/tiled"}
    assert members("tiled", ["plain", "tiled"]) == {"tiled"}


PARTS = {"parts": {"code": {"files": "a/*"}, "prose": {"files": "b/*"}}}


@pytest.mark.parametrize(
    ("corpus", "mixture", "message"),
    [
        (PARTS, [{"from": 0, "weights": {"cod": 1}}], "unknown group 'cod'; allowed: plain, tiled, code, prose, code/"),
        (PARTS, [{"from": 0, "weights": {"packed": 1}}], "group 'packed' is empty: the pool has no share of packed"),
        (PARTS, [{"from": 0, "weights": {"code": 1, "plain": 1}}], "groups 'code' and 'plain' overlap"),
        (
            PARTS,
            [{"from": 0, "weights": {"code": 1}}, {"from": 9, "weights": {"code/plain": 1}}],
            "groups 'code' and 'code/plain' overlap",
        ),
        (PARTS, [{"from": 0, "weights": {"code": 0}}], r"all weights are zero: \{'code': 0"),
        (PARTS, [{"from": 0, "weights": {"code": -1}}], "weight of group 'code' is negative: -1"),
        (PARTS, [{"from": 5, "weights": {"code": 1}}], r"the first at 0; they begin at \[5\]"),
        (PARTS, [{"from": 0, "weights": {"code": 1}}] * 2, r"they begin at \[0, 0\]"),
        ({"files": "a"}, [{"from": 0, "weights": {"code": 1}}], "unknown group 'code'; allowed: plain, tiled"),
        (
            {"files": "a"},
            [{"form": 0, "weights": {"plain": 1}}],
            "unknown field .data.mixture.0.form. .* did you mean .from.",
        ),
    ],
)
def test_a_mistaken_mixture_is_named(corpus, mixture, message):
    with pytest.raises(MechError, match=message):
        parse_experiment(MINIMAL | {"corpus": corpus, "data": {"mixture": mixture}})


def test_a_mixture_changes_training_and_not_tokens():
    plain = parse_experiment(MINIMAL).runs()[0]
    mixed = parse_experiment(MINIMAL | {"data": {"mixture": [{"from": 0, "weights": {"plain": 1}}]}}).runs()[0]
    assert mixed.tokens_slice() == plain.tokens_slice()
    assert mixed.training_slice() != plain.training_slice()
    assert type(mixed).model_validate_json(mixed.model_dump_json()) == mixed
