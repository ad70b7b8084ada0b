"""Influence of trainings without some examples, against trainings with slightly other weights."""

import dataclasses

import numpy as np
import pytest
import torch

from mech_pipeline.attribution.influence import replay
from mech_pipeline.attribution.influence.trajectories import trained_without, trajectory_influence, trajectory_sets
from mech_pipeline.data.example_weights import LAST, ExampleWeights
from mech_pipeline.training.update.optimizer import State
from tests.support.influence import STEPS, initial_theta, sweep, train
from tests.support.models import OPTIMIZERS, gradients_of, in_micro_batches, mechanism_of, with_weights

COPY = "induction_copy_advantage"
NOTHING, REMOVED = np.array([], dtype=np.int64), np.array([2, 5, 11])
SEEN = np.arange(40)


def initial(trainer):
    return State.initial(initial_theta(trainer))


def scores(trainer, probe, removed, start=None, until=STEPS):
    """All scores of a trajectory as {(update step, pool index): score}; an example that came twice is summed."""
    found = {}
    for part in trajectory_influence(
        trainer, start or initial(trainer), until, removed, gradients_of(trainer, probe, COPY)
    ):
        for example, score in zip(part.made.examples.tolist(), part.scores.tolist(), strict=True):
            found[part.step, example] = found.get((part.step, example), 0.0) + score
    return found


def total(found, example):
    return sum(score for (_, each), score in found.items() if each == example)


def by_finite_differences(trainer, probe, removed, example, h=1e-4):
    """The mechanism's derivative by one example's weight: trained again on both sides of where that is."""
    _, value = mechanism_of(trainer, probe, COPY)
    ends = []
    for sign in (1, -1):
        weights = torch.ones(len(trainer.pool), dtype=torch.float64)
        weights[removed] = 0
        weights[example] += sign * h
        *_, last = with_weights(trainer, weights).updates(initial(trainer), STEPS)
        ends.append(value(last.after.theta))
    return (ends[0] - ends[1]) / (2 * h)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trajectory_has_its_own_derivative_by_a_weight_of_0_as_well(make_trainer, tiny_probe, optimizer):
    trainer = make_trainer(optimizer=OPTIMIZERS[optimizer])
    found, with_all = scores(trainer, tiny_probe, REMOVED), scores(trainer, tiny_probe, NOTHING)
    seen = {example for _, example in found}
    assert {example for _, example in with_all} == seen, "examples that are left out have scores"
    for example in (2, 5, 0, 7):  # the first two are left out
        assert example in seen
        expected = by_finite_differences(trainer, tiny_probe, REMOVED, example)
        assert abs(expected) > 1e-6, "an influence of 0 would show nothing"
        assert total(found, example) == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert total(with_all, example) != pytest.approx(expected, rel=1e-3), "and differ from those of the run"


def test_a_trajectory_without_removal_is_the_run(make_trainer, tiny_probe):
    trainer = make_trainer(dtype=torch.float32)
    assert scores(trainer, tiny_probe, NOTHING) == sweep(trainer, train(trainer), tiny_probe, COPY)


def test_a_trajectory_can_start_at_a_later_state(make_trainer, tiny_probe):
    trainer = make_trainer()
    updates = train(trainer)
    late = scores(trainer, tiny_probe, REMOVED, updates[4].before)
    assert {step for step, _ in late} == set(range(4, STEPS))
    assert scores(trainer, tiny_probe, NOTHING, updates[4].before) == {
        pair: score for pair, score in scores(trainer, tiny_probe, NOTHING).items() if pair[0] >= 4
    }


def test_own_weights_and_micro_batches_are_those_of_the_run(make_trainer, tiny_probe):
    """Half the loss of every example, with twice the learning rate of SGD, is the same training with twice the influence."""
    trainer = in_micro_batches(make_trainer(optimizer=OPTIMIZERS["sgd with momentum"]), 2)
    trainer.optimizer = trainer.optimizer.model_copy(update={"clip_norm": None, "weight_decay": 0.0})
    plain = scores(trainer, tiny_probe, REMOVED)
    half = ExampleWeights(np.arange(24), np.full(24, 0.5), np.zeros(24, np.int64), np.full(24, LAST))
    fast = trainer.optimizer.model_copy(update={"learning_rate": 2 * trainer.optimizer.learning_rate})
    other = dataclasses.replace(trainer, optimizer=fast, example_weights=half)
    weighted = scores(other, tiny_probe, REMOVED, initial(trainer))
    assert {pair: score / 2 for pair, score in weighted.items()} == pytest.approx(plain, rel=1e-9)


def test_kept_graphs_of_weights_0_and_1_change_no_score(make_trainer, tiny_probe, monkeypatch):
    trainer, built = make_trainer(dtype=torch.float32), []
    graph = replay.GradientGraph
    monkeypatch.setattr(replay, "GradientGraph", lambda *given: built.append(given) or graph(*given))
    kept = scores(trainer, tiny_probe, REMOVED)
    assert len(built) == STEPS, "replays kept their graphs and had the bits of training"
    monkeypatch.setattr(replay, "GRAPH_BYTES", 0)
    assert scores(trainer, tiny_probe, REMOVED) == kept


def test_sets_are_named_draws_that_more_of_them_leave_alone():
    nothing, *drawn = trajectory_sets(SEEN, 0.1, 6, seed=0)
    assert len(nothing) == 0
    assert [len(np.unique(each)) for each in drawn] == [4] * 5
    assert len({tuple(each) for each in drawn}) == 5
    again = trajectory_sets(SEEN, 0.1, 3, seed=0)
    assert [each.tolist() for each in again[1:]] == [each.tolist() for each in drawn[:2]]
    assert trajectory_sets(SEEN, 0.1, 2, seed=1)[1].tolist() != drawn[0].tolist()
    assert [len(each) for each in trajectory_sets(SEEN, 0.1, 1, seed=0)] == [0]


@pytest.mark.parametrize(
    ("seen", "share", "count", "match"),
    [
        (SEEN, 0.05, 0, "at least one trajectory, got 0"),
        (SEEN, 0.0, 6, "between 0 and 1, got 0"),
        (SEEN, 1.0, 6, "between 0 and 1, got 1"),
        (SEEN[:1], 0.05, 6, "a share of 1 examples nothing would be left"),
    ],
)
def test_sets_that_make_no_sense_are_refused(seen, share, count, match):
    with pytest.raises(ValueError, match=match):
        trajectory_sets(seen, share, count, seed=0)


@pytest.mark.parametrize(
    ("removed", "match"),
    [
        (np.array([3, 24]), "example 24 cannot be left out of a pool of 24"),
        (np.array([-1]), "example -1 cannot be left out"),
        (np.arange(24), "24 examples.* no less than the pool's 24"),
        (np.array([3, 3]), "not all distinct"),
    ],
)
def test_sets_outside_the_pool_or_as_large_are_refused(make_trainer, removed, match):
    with pytest.raises(ValueError, match=match):
        trained_without(make_trainer(), removed)
