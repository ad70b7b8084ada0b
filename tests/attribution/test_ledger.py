"""The ledger balances: by window, over a run, in every optimizer; and its error falls at Simpson's order."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from mech_pipeline.attribution.ledger.ledger import replay_with_factors, window_account
from mech_pipeline.attribution.ledger.quadrature import path_averages
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.training.update.optimizer import State
from tests.support.ledgers import SMOOTH, ledger
from tests.support.models import ARCHITECTURES, OPTIMIZERS, components, mechanism_of
from tests.support.on_every_device import every_window_and_the_run_balance


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_window_and_the_run_balance(make_trainer, tiny_probe, architecture, optimizer):
    every_window_and_the_run_balance(make_trainer, tiny_probe, architecture, optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_examples_and_coupled_decay_do_later_equals_the_momentum_carried_in(make_trainer, tiny_probe, optimizer):
    accounts, _ = ledger(make_trainer(optimizer=OPTIMIZERS[optimizer]), tiny_probe, [3, 7, 8, 14])
    later = sum(float(a.examples_later.sum() + a.weight_decay_later.sum()) for a in accounts)
    momentum = sum(float(a.momentum.sum()) for a in accounts)
    assert abs(momentum) > 1e-6
    assert later == pytest.approx(momentum, rel=1e-10)


def test_splitting_a_run_into_windows_does_not_change_an_examples_whole_effect(make_trainer, tiny_probe):
    trainer = make_trainer()
    whole, _ = ledger(trainer, tiny_probe, [10])
    trainer = make_trainer()
    parts, _ = ledger(trainer, tiny_probe, [3, 6, 10])
    joined = torch.cat([a.examples + a.examples_later for a in parts])
    assert torch.allclose(joined, whole[0].examples, rtol=1e-9, atol=1e-15)


def test_imbalance_falls_at_fourth_order_when_steps_are_subdivided(make_trainer, tiny_probe):
    """Dividing one straight step into n makes Simpson's error fall like n⁻⁴ (16-fold per halving)."""
    trainer = make_trainer()
    made = trainer.step(State.initial(trainer.flat.vector))
    direction = made.after.theta - made.before.theta
    at, scalar = mechanism_of(trainer, tiny_probe, SMOOTH)
    start, stride = made.before.theta, 20 * direction
    truth = scalar(start + stride) - scalar(start)
    errors = []
    for pieces in (1, 2, 4, 8):
        points = [start + stride * k / pieces for k in range(pieces + 1)]
        states = [dataclasses.replace(made.before, theta=p) for p in points]
        updates = [dataclasses.replace(made, before=a, after=b) for a, b in pairwise(states)]
        explained = sum(
            float(g @ (u.after.theta - u.before.theta))
            for g, u in zip(path_averages(at, updates).gradients, updates, strict=True)
        )
        errors.append(abs(explained - truth))
    assert errors[0] > 1e-9, "the step is too small to see the order"
    orders = [float(torch.log2(torch.tensor(a / b))) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(4, abs=0.4), f"errors {errors}"


def test_a_wrong_clip_factor_is_noticed(make_trainer, tiny_probe):
    """The check can fail: contributions stored before clipping do not add up to the applied update."""
    trainer = make_trainer()
    parts = components(trainer)
    updates, factors = replay_with_factors(trainer, State.initial(trainer.flat.vector), 3)
    assert all(u.clip < 1 for u in updates)
    wrong = [dataclasses.replace(u, clip=1.0) for u in updates]
    account = window_account(
        trainer.optimizer, parts, Contraction(trainer.flat, parts), lambda theta: torch.ones_like(theta), wrong, factors
    )
    assert account.update_error > 1e-2


def test_steps_too_large_for_one_panel_are_refined_until_they_explain_their_change(make_trainer, tiny_probe):
    """A learning rate at which plain Simpson misses by more than the accepted error."""
    optimizer = OPTIMIZERS["adamw, never clipped"].model_copy(update={"learning_rate": 0.2})
    trainer = make_trainer(optimizer=optimizer)
    updates = list(trainer.updates(State.initial(trainer.flat.vector), 4))
    at, scalar = mechanism_of(trainer, tiny_probe, SMOOTH)

    def errors(averages):
        pairs = zip(averages, updates, strict=True)
        return [
            abs(float(g @ (u.after.theta - u.before.theta)) - (scalar(u.after.theta) - scalar(u.before.theta)))
            for g, u in pairs
        ]

    plain = errors(path_averages(at, updates).gradients)
    refined = errors(path_averages(at, updates, scalar).gradients)
    assert max(plain) > 1e-4
    for error, made in zip(refined, updates, strict=True):
        assert error <= 2e-6 * abs(scalar(made.after.theta) - scalar(made.before.theta)) + 1e-7
