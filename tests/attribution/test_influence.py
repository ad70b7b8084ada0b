"""Influence against finite differences of really retrained models, and against closed forms."""

import pytest
import torch

from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.reliability import adjoint_growth, sign_agreement
from tests.support.influence import STEPS, sweep, target_of, train, windows_of
from tests.support.models import ARCHITECTURES, OPTIMIZERS
from tests.support.on_every_device import (
    influence_equals_finite_differences_of_retraining,
    metasmoothness_is_near_one_for_a_short_gentle_training,
)


@pytest.mark.parametrize("mechanism", ["induction_copy_advantage", "previous_token_attention"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_influence_equals_finite_differences_of_retraining(
    make_trainer, tiny_probe, architecture, optimizer, mechanism
):
    influence_equals_finite_differences_of_retraining(make_trainer, tiny_probe, architecture, optimizer, mechanism)


def test_uniform_reweighting_changes_nothing_under_adam(make_trainer, tiny_probe):
    """Adam divides by the gradient's own scale, so with eps → 0 and no clipping all influence sums to 0."""
    optimizer = OPTIMIZERS["adamw, never clipped"].model_copy(update={"eps_root": 1e-16})
    trainer = make_trainer(optimizer=optimizer)
    scores = sweep(trainer, train(trainer), tiny_probe, "induction_copy_advantage")
    assert abs(sum(scores.values())) < 1e-6 * sum(abs(s) for s in scores.values())


def test_window_size_does_not_matter(make_trainer, tiny_probe):
    trainer = make_trainer()
    updates = train(trainer)
    one = sweep(trainer, updates, tiny_probe, "induction_copy_advantage", window=1)
    all_at_once = sweep(trainer, updates, tiny_probe, "induction_copy_advantage", window=100)
    assert one == all_at_once


def test_an_overflowing_adjoint_ends_the_sweep_instead_of_giving_numbers(make_trainer, tiny_probe):
    trainer = make_trainer()
    updates = train(trainer)
    huge = Target("overflows", STEPS, torch.full_like(trainer.flat.vector, 1e308))
    good = target_of(trainer, tiny_probe, "induction_copy_advantage", updates[-1])
    swept = list(influence_sweep(trainer, [huge, good], windows_of(updates)))
    assert sum(part.target == 0 for part in swept) < len(updates)
    assert [part.scores.isfinite().all() for part in swept if part.target == 1] == [True] * len(updates)


def test_sign_agreement_is_one_for_parallel_and_minus_one_for_opposite_moves():
    move = torch.tensor([1.0, -2.0, 3.0])
    assert sign_agreement(move, 2 * move) == 1.0
    assert sign_agreement(move, -move) == -1.0
    assert sign_agreement(move, torch.tensor([1.0, 2.0, 3.0])) == pytest.approx((1 - 2 + 3) / 6)


def test_metasmoothness_is_near_one_for_a_short_gentle_training(make_trainer):
    metasmoothness_is_near_one_for_a_short_gentle_training(make_trainer)


def test_growth_past_the_limit_sets_the_horizon():
    norms = [(9, 1.0), (8, 10.0), (7, 1e7), (6, 5.0)]
    found = adjoint_growth(norms, norm_at_target=1.0)
    assert found.horizon_step == 8
    assert found.growth == 1e7
