"""Influence against finite differences of really retrained models, and against closed forms."""

import pytest
import torch

from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.reliability import adjoint_growth, metasmoothness, sign_agreement
from mech_pipeline.attribution.influence.replay import Replayed
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, OPTIMIZERS, with_weights

STEPS = 9


def train(trainer, until=STEPS):
    return list(trainer.updates(State.initial(initial_theta(trainer)), until))


def initial_theta(trainer):
    if not hasattr(trainer, "theta_0"):
        trainer.theta_0 = trainer.flat.vector.clone()
    return trainer.theta_0


def target_of(trainer, probe, mechanism, update, horizon=None):
    """The mechanism after an update."""
    trainer.flat.load(update.after.theta)
    gradient = trainer.flat.gradient(MECHANISMS[mechanism].value(trainer.flat.model, probe))
    return Target(mechanism, update.after.step, gradient, horizon)


def windows_of(updates, window=4):
    """The updates cut into windows, last first, without graphs."""
    chunks = [updates[i : i + window] for i in range(0, len(updates), window)]
    return [lambda chunk=chunk: [Replayed(made) for made in chunk] for chunk in reversed(chunks)]


def sweep_all(trainer, targets, windows, **more):
    """Scores of each target as {(update step, pool index): score}; an example that came twice is summed."""
    found = [{} for _ in targets]
    for part in influence_sweep(trainer, targets, windows, **more):
        for example, score in zip(part.made.examples.tolist(), part.scores.tolist(), strict=True):
            cell = part.step, example
            found[part.target][cell] = found[part.target].get(cell, 0.0) + score
    return found


def sweep(trainer, updates, probe, mechanism, window=4):
    """All scores as {(update step, pool index): score}."""
    return sweep_all(trainer, [target_of(trainer, probe, mechanism, updates[-1])], windows_of(updates, window))[0]


@pytest.mark.parametrize("mechanism", ["induction_copy_advantage", "previous_token_attention"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_influence_equals_finite_differences_of_retraining(
    make_trainer, tiny_probe, architecture, optimizer, mechanism
):
    trainer = make_trainer(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    updates = train(trainer)
    if trainer.optimizer.clip_norm is not None:
        assert any(u.clip < 1 for u in updates), "clipping must be active to be tested"
    scores = sweep(trainer, updates, tiny_probe, mechanism)
    seen = [(u.before.step, int(e)) for u in updates for e in u.examples]
    example = max({e for _, e in seen}, key=lambda e: abs(sum(v for (_, i), v in scores.items() if i == e)))
    predicted = sum(value for (_, index), value in scores.items() if index == example)

    def retrained(delta):
        weights = torch.ones(len(trainer.pool), dtype=torch.float64)
        weights[example] += delta
        state = list(with_weights(trainer, weights).updates(State.initial(trainer.theta_0), STEPS))[-1].after
        trainer.flat.load(state.theta)
        return float(MECHANISMS[mechanism].value(trainer.flat.model, tiny_probe).detach())

    h = 1e-4
    # fourth-order central difference: truncation far below the tolerance
    measured = (8 * (retrained(h) - retrained(-h)) - (retrained(2 * h) - retrained(-2 * h))) / (12 * h)
    assert predicted == pytest.approx(measured, rel=1e-5)


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
    trainer = make_trainer()
    start = State.initial(initial_theta(trainer))
    reference = list(trainer.updates(start, 3))[-1].after.theta
    assert metasmoothness(trainer, start, 3, 0.01, reference) > 0.95


def test_growth_past_the_limit_sets_the_horizon():
    norms = [(9, 1.0), (8, 10.0), (7, 1e7), (6, 5.0)]
    found = adjoint_growth(norms, norm_at_target=1.0)
    assert found.horizon_step == 8
    assert found.growth == 1e7
