"""Rows of a window: against one backward per example pushed through the update itself, and they sum to what was applied."""

import pytest
import torch

from mech_pipeline.attribution.ledger.ledger import replay_with_factors
from mech_pipeline.attribution.per_example.factor_sketches import FactorSketcher
from mech_pipeline.attribution.per_example.summed_gradient import SummedGradient
from mech_pipeline.discovery.update_rows import RAW, batches_of, group_displacement, reach, window_rows
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import State, coefficients, scaling
from tests.support.models import ARCHITECTURES, OPTIMIZERS, trainer_of

WIDTH = 101


def after(trainer, updates):
    *_, last = trainer.updates(State.initial(trainer.flat.vector), updates)
    return last.after


def pushed(optimizer, updates, entering, momentum):
    """Where a gradient that enters each update, and the momentum before them, move the weights, D as it was."""
    moved = torch.zeros_like(momentum)
    for made, gradient in zip(updates, entering, strict=True):
        c = coefficients(optimizer, made.before.step)
        momentum = c.beta * momentum + c.kappa * gradient
        moved -= c.learning_rate / c.r1 * scaling(optimizer, made.after.v, made.before.step) * momentum
    return moved


def slowly(trainer, updates):
    """δ of every example that occurs, from a backward of its own at each update that sees it."""
    gradients = {}
    for number, made in enumerate(updates):
        trainer.flat.load(made.before.theta)
        for example in made.examples.tolist():
            own = trainer.flat.gradient(
                example_losses(trainer.flat.model, trainer.tokens(torch.tensor([example]))).sum()
            )
            each = gradients.setdefault(example, [torch.zeros_like(own) for _ in updates])
            each[number] += made.clip * own / len(made.examples)
    still = torch.zeros_like(updates[0].before.m)
    return {key: pushed(trainer.optimizer, updates, gradients[key], still) for key in sorted(gradients)}, gradients


def without_examples(trainer, updates):
    """What momentum carried in and weight decay did."""
    optimizer, theta = trainer.optimizer, [made.before.theta for made in updates]
    numbers = [coefficients(optimizer, made.before.step) for made in updates]
    coupled = [c.coupled_decay * at for c, at in zip(numbers, theta, strict=True)]
    decoupled = sum(c.learning_rate * c.decay * at for c, at in zip(numbers, theta, strict=True))
    return pushed(optimizer, updates, coupled, updates[0].before.m) - decoupled


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ["attention-only", "gpt2", "llama with shared keys"])
def test_rows_are_sketches_of_what_each_example_did_and_sum_to_the_applied_updates(architecture, optimizer):
    trainer = trainer_of(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    updates, factors = replay_with_factors(trainer, after(trainer, 3), 9)
    expected, _ = slowly(trainer, updates)
    displacement = updates[-1].after.theta - updates[0].before.theta
    rest = without_examples(trainer, updates)
    total = sum(expected.values()) + rest
    assert torch.allclose(total, displacement, rtol=1e-9, atol=1e-12)
    assert float(rest.norm()) > 0.01 * float(displacement.norm()), "nothing was carried in, so nothing is tested"
    sketcher = FactorSketcher(trainer.flat, seed=1, width=WIDTH)
    rows = window_rows(sketcher, trainer.optimizer, updates, factors)
    assert rows.examples.tolist() == list(expected)
    for row, moved in zip(rows.applied, expected.values(), strict=True):
        assert torch.allclose(row, sketcher.vector(moved), rtol=1e-9, atol=1e-13)
    assert torch.allclose(rows.applied.sum(0) + sketcher.vector(rest), sketcher.vector(displacement), atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_raw_rows_are_sketches_of_gradients_that_no_metric_has_touched(architecture):
    trainer = trainer_of(ARCHITECTURES[architecture], OPTIMIZERS["adamw, never clipped"])
    updates, factors = replay_with_factors(trainer, after(trainer, 1), 8)
    sketcher = FactorSketcher(trainer.flat, seed=1, width=WIDTH)
    rows = window_rows(sketcher, trainer.optimizer, updates, factors)
    _, gradients = slowly(trainer, updates)
    for example, row in zip(rows.examples.tolist(), rows.raw, strict=True):
        assert torch.allclose(row, sketcher.vector(sum(gradients[example]), RAW), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_a_group_moved_the_weights_is_the_sum_of_its_examples(architecture):
    trainer = trainer_of(ARCHITECTURES[architecture])
    updates, factors = replay_with_factors(trainer, after(trainer, 3), 9)
    expected, _ = slowly(trainer, updates)
    examples, batches = batches_of(updates)
    members = torch.tensor([0, 3, 4])
    moves = reach(trainer.optimizer, updates)
    moved = group_displacement(SummedGradient(trainer.flat), updates, factors, moves, batches, members)
    assert torch.allclose(moved, sum(expected[int(example)] for example in examples[members]), rtol=1e-9, atol=1e-13)
