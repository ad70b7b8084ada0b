"""Counterfactual retrainings: stacked, they are the plain training with weights 0, whatever is trained and how."""

import dataclasses

import numpy as np
import pytest
import torch

from mech_pipeline.attribution.retraining import retraining
from mech_pipeline.attribution.retraining.retraining import retrain, rows_of_a_stack
from mech_pipeline.attribution.retraining.stack import Counterfactuals, retrain_alone
from mech_pipeline.data.example_weights import LAST, ExampleWeights
from mech_pipeline.data.order import Order
from mech_pipeline.spec.mixture import Phase
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.training import Training
from tests.support.models import ARCHITECTURES, OPTIMIZERS
from tests.support.on_every_device import a_stack_of_removals_is_plain_training_with_weights_0
from tests.support.retrainings import NOTHING, REMOVED, UNTIL, assert_equal, initial, plain, stacked


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stack_of_removals_is_plain_training_with_weights_0(make_trainer, architecture, optimizer):
    a_stack_of_removals_is_plain_training_with_weights_0(make_trainer, architecture, optimizer)


def test_micro_batches_mixtures_and_own_weights_are_respected(make_trainer):
    trainer = make_trainer()
    groups = {"even": np.arange(0, 24, 2), "odd": np.arange(1, 24, 2)}
    phases = (Phase(begin=0, weights={"even": 1, "odd": 3}), Phase(begin=4, weights={"even": 3, "odd": 1}))
    own = ExampleWeights(np.array([2, 3]), np.array([0.5, 2.0]), np.array([0, 4]), np.array([LAST, LAST]))
    trainer = dataclasses.replace(
        trainer,
        training=Training(steps=20, batch=4, micro_batches=2),
        order=Order(0, groups, phases, 4),
        example_weights=own,
    )
    start = initial(trainer)
    expected = plain(trainer, REMOVED, start)
    for rows in (2, 0):
        assert_equal(stacked(trainer, REMOVED, start, rows=rows, workers=2), expected)


def test_retraining_can_start_at_a_later_state(make_trainer):
    trainer = make_trainer()
    start = initial(trainer)
    *_, last = trainer.updates(start, 5)
    late = plain(trainer, REMOVED, last.after)
    assert_equal(stacked(trainer, REMOVED, last.after), late)
    assert not torch.allclose(late[3], plain(trainer, [REMOVED[3]], start)[0], rtol=1e-3)


@pytest.mark.parametrize(("rows", "workers"), [(1, 1), (5, 1), (2, 2), (64, 8)])
def test_results_do_not_depend_on_how_retrainings_are_stacked(make_trainer, rows, workers):
    trainer = make_trainer(dtype=torch.float32)
    start = initial(trainer)
    reference = stacked(trainer, REMOVED, start, rows=1, workers=1)
    for one, other in zip(stacked(trainer, REMOVED, start, rows=rows, workers=workers), reference, strict=True):
        assert torch.equal(one, other)


def test_one_that_diverges_does_not_take_the_others_with_it(make_trainer):
    trainer = make_trainer()
    huge = ExampleWeights(np.arange(12, 24), np.full(12, 1e9), np.full(12, 4), np.full(12, LAST))
    trainer, start = dataclasses.replace(trainer, example_weights=huge), initial(trainer)
    removed = [NOTHING, np.arange(12, 24), np.array([1]), np.arange(11, 24)]
    found = stacked(trainer, removed, start, rows=4, workers=1)
    assert [theta is None for theta in found] == [True, False, True, False]
    assert_equal([found[1], found[3]], plain(trainer, [removed[1], removed[3]], start))
    alone = retrain_alone(Counterfactuals(trainer, start, UNTIL), removed)
    assert [theta is None for theta in alone] == [True, False, True, False]


def test_without_stacks_it_is_the_run_itself_bit_for_bit(make_trainer, monkeypatch):
    monkeypatch.setattr(retraining, "rows_of_a_stack", lambda trainer: 0)
    trainer = make_trainer(dtype=torch.float32)
    start = initial(trainer)
    *_, run = trainer.updates(start, UNTIL)
    found = stacked(trainer, REMOVED, start, workers=2)
    assert torch.equal(found[0], run.after.theta)
    for one, other in zip(found, plain(trainer, REMOVED, start), strict=True):
        assert torch.equal(one, other)


def test_bf16_runs_are_retrained_one_after_another(make_trainer):
    trainer = make_trainer(dtype=torch.float32)
    trainer = dataclasses.replace(trainer, training=Training(steps=20, batch=4, precision="bf16"))
    start = initial(trainer)
    for one, other in zip(stacked(trainer, REMOVED[:3], start), plain(trainer, REMOVED[:3], start), strict=True):
        assert torch.equal(one, other)


def test_progress_counts_the_updates_of_all_retrainings(make_trainer):
    counts = []
    trainer = make_trainer()
    for rows in (2, 0):
        stacked(trainer, REMOVED, initial(trainer), rows=rows, workers=2, report=counts.append)
        assert counts == sorted(counts)
        assert counts[-1] == len(REMOVED) * UNTIL
        counts.clear()


def test_who_stops_listening_stops_the_work(make_trainer):
    def give_up(done):
        raise ValueError("enough")

    trainer = make_trainer()
    with pytest.raises(ValueError, match="enough"):
        list(retrain(trainer, initial(trainer), 10**6, REMOVED, rows=1, workers=2, report=give_up))


def test_small_models_are_stacked_and_larger_ones_are_not(make_trainer):
    small, large = make_trainer(batch=4), make_trainer(Model(layers=2, heads=4, d_model=64, d_mlp=256), batch=400)
    assert rows_of_a_stack(small) > 1
    assert rows_of_a_stack(large) == 0, "a core is busy with one"
