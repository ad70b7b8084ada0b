"""Scores from the training backward: against one backward per example, and without a trace in training."""

import dataclasses

import pytest
import torch

from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.in_training import InTraining, step_directions
from mech_pipeline.errors import MechError
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, OPTIMIZERS, components, mechanism_of
from tests.support.on_every_device import scores_of_every_update_equal_one_backward_per_example
from tests.support.per_example import assert_close, one_backward_per_example, random_directions


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_of_every_update_equal_one_backward_per_example(make_trainer, architecture, micro_batches, count):
    scores_of_every_update_equal_one_backward_per_example(make_trainer, architecture, micro_batches, count)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("only", [None, ["L0H0.*"]])
def test_training_keeps_its_bits(make_trainer, architecture, only):
    plain = make_trainer(ARCHITECTURES[architecture], dtype=torch.float32)
    scored = make_trainer(ARCHITECTURES[architecture], dtype=torch.float32)
    contraction = Contraction(scored.flat, components(scored), only)
    start = State.initial(plain.flat.vector)
    with InTraining(scored, contraction, random_directions(scored, 2)) as scoring:
        for made, same in zip(plain.updates(start, 5), scored.updates(start, 5), strict=True):
            assert torch.equal(made.gradient, same.gradient)
            assert scoring.scores().shape == (2, 4, len(contraction.names))
            last = made, same
    for field in ("theta", "m", "v"):
        assert torch.equal(getattr(last[0].after, field), getattr(last[1].after, field))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in scored.flat.model.modules())


def test_confined_scores_are_the_same_numbers_and_directions_may_change_between_updates(make_trainer):
    trainer = make_trainer(ARCHITECTURES["mlp and layer norm"])
    parts = components(trainer, neurons=True)
    contraction = Contraction(trainer.flat, parts, ["L0H1.Q", "L0N[23].*"])
    first, second = random_directions(trainer, 2)[:, None]
    state = State.initial(trainer.flat.vector)
    scoring = InTraining(trainer, contraction, first)
    for direction in (first, second):
        scoring.directions = direction
        with scoring:
            made = trainer.step(state)
        trainer.flat.load(made.before.theta)
        truth = one_backward_per_example(trainer, parts, trainer.pool[made.examples], direction)
        assert_close(scoring.scores(), truth[..., [parts.names.index(name) for name in contraction.names]], 1e-12)
        state = made.after


def test_an_examples_weight_counts(make_trainer):
    trainer = make_trainer()
    weighted = dataclasses.replace(trainer, weights=torch.linspace(0, 2, len(trainer.pool), dtype=torch.float64))
    contraction, directions = Contraction(trainer.flat, components(trainer)), random_directions(trainer, 1)
    state = State.initial(trainer.flat.vector)
    with InTraining(weighted, contraction, directions) as scoring:
        made = weighted.step(state)
    trainer.flat.load(state.theta)
    truth = one_backward_per_example(trainer, components(trainer), trainer.pool[made.examples], directions)
    assert_close(scoring.scores(), truth * weighted.weights[made.examples][None, :, None], 1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_under_bf16_scores_sum_to_the_batch_within_its_rounding(make_trainer, architecture):
    """bf16 has 8 bits, so gradients differ by about 1 % of their norm, and that much along a random direction."""
    trainer = make_trainer(ARCHITECTURES[architecture], dtype=torch.float32)
    trainer = dataclasses.replace(trainer, training=trainer.training.model_copy(update={"precision": "bf16"}))
    directions = random_directions(trainer, 3)
    with InTraining(trainer, Contraction(trainer.flat, components(trainer)), directions) as scoring:
        made = trainer.step(State.initial(trainer.flat.vector))
    off = scoring.scores().sum((1, 2)) / 4 - directions.double() @ made.gradient.double()
    assert off.abs().max() < 0.05 * made.gradient.norm()


def test_evaluating_without_gradients_between_updates_leaves_no_scores(make_trainer):
    trainer = make_trainer()
    with InTraining(trainer, Contraction(trainer.flat, components(trainer)), random_directions(trainer, 1)) as scoring:
        trainer.step(State.initial(trainer.flat.vector))
        with torch.no_grad():
            example_losses(trainer.flat.model, trainer.pool[:7])
        assert scoring.scores().shape[1] == 4


@pytest.mark.parametrize("optimizer", ["adamw, never clipped", "sgd with momentum"])
def test_an_example_scored_at_the_anchor_does_to_first_order_what_is_said(make_trainer, tiny_probe, optimizer):
    """Reweighting one example by ±h, D held: (M₊ − M₋)/2h of one update equals its score times clip / B."""
    trainer = make_trainer(optimizer=OPTIMIZERS[optimizer].model_copy(update={"clip_norm": None}))
    gradient_at, value_at = mechanism_of(trainer, tiny_probe, "induction_copy_advantage")
    anchor = list(trainer.updates(State.initial(trainer.flat.vector), 3))[-1].after
    directions = step_directions(trainer.optimizer, anchor, gradient_at(anchor.theta)[None])
    with InTraining(trainer, Contraction(trainer.flat, components(trainer)), directions) as scoring:
        made = trainer.step(anchor)
    score = scoring.scores()[0, 1].sum() / 4
    trainer.flat.load(anchor.theta)
    own = trainer.flat.gradient(example_losses(trainer.flat.model, trainer.pool[made.examples[1]][None])[0]) / 4
    per_gradient = step_directions(trainer.optimizer, anchor, torch.ones_like(directions))[0]  # −(η κ / r₁) D
    h = 1e-4
    change = value_at(anchor.theta + h * per_gradient * own) - value_at(anchor.theta - h * per_gradient * own)
    assert change / (2 * h) == pytest.approx(float(score), rel=1e-5)


def test_a_gradient_of_something_else_meanwhile_is_noticed(make_trainer):
    trainer = make_trainer()
    with InTraining(trainer, Contraction(trainer.flat, components(trainer)), random_directions(trainer, 1)) as scoring:
        trainer.step(State.initial(trainer.flat.vector))
        trainer.flat.gradient(example_losses(trainer.flat.model, trainer.pool[:7]).mean())
        with pytest.raises(AssertionError, match="nothing else"):
            scoring.scores()


def test_what_hooks_cannot_see_is_refused(make_trainer):
    trainer = make_trainer()
    stacked = dataclasses.replace(trainer, training=trainer.training.model_copy(update={"stacked": True}))
    with pytest.raises(MechError, match=r"training\.stacked"):
        InTraining(stacked, Contraction(trainer.flat, components(trainer)), random_directions(trainer, 1))
    with pytest.raises(ValueError, match="step 0"):
        step_directions(trainer.optimizer, State.initial(trainer.flat.vector), random_directions(trainer, 1))
