"""What must hold on every device: the tests of each subject say it of the CPU, tests/gpu says it of a GPU."""

import dataclasses

import pytest
import torch

from mech_pipeline.attribution.influence.influence import influence_sweep
from mech_pipeline.attribution.influence.reliability import metasmoothness
from mech_pipeline.attribution.ledger.ledger import batch_factors
from mech_pipeline.attribution.per_example.capture import Capture
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.in_training import InTraining
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.training.many.stack import StackedGradient
from mech_pipeline.training.model import next_token_losses
from mech_pipeline.training.update.optimizer import State
from tests.support.influence import STEPS, initial_theta, sweep, sweep_all, target_of, train, windows_of
from tests.support.ledgers import ledger
from tests.support.models import ARCHITECTURES, OPTIMIZERS, components, in_micro_batches, with_weights
from tests.support.per_example import assert_close, one_backward_per_example, random_directions
from tests.support.retrainings import REMOVED, assert_equal, initial, plain, stacked

COPY = "induction_copy_advantage"


def a_stack_gives_each_run_the_gradient_it_has_alone(make_trainer, architecture):
    trainers = [make_trainer(ARCHITECTURES[architecture], dtype=torch.float64, seed=seed) for seed in range(3)]
    thetas = torch.stack([trainer.flat.vector for trainer in trainers])
    tokens = torch.stack([trainer.tokens(trainer.batch(0)) for trainer in trainers])
    weights = torch.linspace(0.5, 1.5, 4, dtype=torch.float64, device=thetas.device).expand(3, -1)
    gradients, losses = StackedGradient(trainers[0].flat)(thetas, tokens, weights)
    for trainer, gradient, loss in zip(trainers, gradients, losses, strict=True):
        everyone = torch.zeros(len(trainer.pool), dtype=torch.float64)
        everyone[trainer.batch(0)] = weights[0].cpu()
        alone, value = dataclasses.replace(trainer, weights=everyone).gradient(trainer.flat.vector, trainer.batch(0), 0)
        assert torch.allclose(gradient, alone, rtol=1e-10, atol=1e-14)
        assert float(loss) == pytest.approx(value, rel=1e-12)


def every_window_and_the_run_balance(make_trainer, tiny_probe, architecture, optimizer):
    trainer = make_trainer(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    # Large steps on purpose; the quadrature error per update is that of Simpson's rule, so steps are made small here.
    # (GPT-2's initial weights are 50 times smaller, and so is the step that bends M as little.)
    smaller = 20 if ARCHITECTURES[architecture].init == "pytorch" else 1000
    rate = trainer.optimizer.learning_rate / smaller
    trainer.optimizer = trainer.optimizer.model_copy(update={"learning_rate": rate})
    accounts, changes = ledger(trainer, tiny_probe, [4, 9, 12])
    for account, change in zip(accounts, changes, strict=True):
        assert account.explained() == pytest.approx(change, abs=1e-6 * account.gross)
        assert account.update_error < 1e-6
        assert account.example_error < 1e-6
    assert sum(a.explained() for a in accounts) == pytest.approx(
        sum(changes), abs=1e-6 * sum(a.gross for a in accounts)
    )


def influence_equals_finite_differences_of_retraining(make_trainer, tiny_probe, architecture, optimizer, mechanism):
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


def metasmoothness_is_near_one_for_a_short_gentle_training(make_trainer):
    trainer = make_trainer()
    start = State.initial(initial_theta(trainer))
    reference = list(trainer.updates(start, 3))[-1].after.theta
    assert metasmoothness(trainer, start, 3, 0.01, reference).value > 0.95


def influence_of_one_tokens_loss_equals_finite_differences_of_retraining(make_trainer, tiny_probe, architecture):
    """The weight of a single target token of one example in one update is varied, and training repeated."""
    trainer = make_trainer(ARCHITECTURES[architecture])
    updates = train(trainer)
    target = target_of(trainer, tiny_probe, COPY, updates[-1])
    chosen = next(p for p in influence_sweep(trainer, [target], windows_of(updates)) if p.step == 3)
    row, token = divmod(int(chosen.tokens.abs().argmax()), chosen.tokens.shape[1])

    def retrained(delta):
        state = State.initial(trainer.theta_0)
        while state.step < STEPS:
            examples = trainer.batch(state.step)
            trainer.flat.load(state.theta)
            losses = next_token_losses(trainer.flat.model, trainer.tokens(examples))
            weights = torch.ones_like(losses)
            if state.step == 3:
                weights[row, token] += delta
            loss = (weights * losses).mean(1).mean()
            state = trainer.update_from(state, examples, trainer.flat.gradient(loss), float(loss.detach())).after
        trainer.flat.load(state.theta)
        return float(MECHANISMS[COPY].value(trainer.flat.model, tiny_probe).detach())

    h = 1e-3
    measured = (8 * (retrained(h) - retrained(-h)) - (retrained(2 * h) - retrained(-2 * h))) / (12 * h)
    assert float(chosen.tokens[row, token]) == pytest.approx(measured, rel=1e-6)


def tokens_and_components_sum_to_the_example(make_trainer, tiny_probe):
    trainer = make_trainer(ARCHITECTURES["gpt2"])
    updates = train(trainer)
    parts = components(trainer)
    contraction = Contraction(trainer.flat, parts)
    target = target_of(trainer, tiny_probe, COPY, updates[-1])
    for part in influence_sweep(trainer, [target], windows_of(updates)):
        scale = part.scores.abs().max()
        assert (part.tokens.sum(1) - part.scores).abs().max() < 1e-12 * scale
        split = contraction(batch_factors(trainer, part.made, weighted=False), part.direction[None])[0]
        assert (split.sum(1) - part.scores).abs().max() < 1e-11 * scale


def a_resumed_sweep_gives_the_same_numbers(make_trainer, tiny_probe):
    trainer = make_trainer()
    updates = train(trainer)
    targets = [target_of(trainer, tiny_probe, COPY, u) for u in (updates[-1], updates[5])]
    windows = windows_of(updates, window=3)
    states = []
    whole = sweep_all(trainer, targets, windows, on_window=states.append)
    first = sweep_all(trainer, targets, windows[:2])
    assert states[1].step == 3
    rest = sweep_all(trainer, targets, windows[2:], resume=states[1])
    assert [a | b for a, b in zip(first, rest, strict=True)] == whole


def contraction_equals_one_backward_per_example(make_trainer, architecture, dtype, tolerance, count):
    trainer = make_trainer(ARCHITECTURES[architecture], dtype=dtype)
    parts, directions = components(trainer), random_directions(trainer, count)
    with Capture(trainer.flat.model) as capture:
        made = trainer.step(State.initial(trainer.flat.vector))
    fast = Contraction(trainer.flat, parts)(capture.factors(), directions)
    slow = one_backward_per_example(trainer, parts, trainer.tokens(made.examples), directions) / len(made.examples)
    assert_close(fast, slow, tolerance)


def scores_of_every_update_equal_one_backward_per_example(make_trainer, architecture, micro_batches, count):
    trainer = in_micro_batches(make_trainer(ARCHITECTURES[architecture]), micro_batches)
    parts, directions = components(trainer), random_directions(trainer, count)
    found = []
    with InTraining(trainer, Contraction(trainer.flat, parts), directions) as scoring:
        for made in trainer.updates(State.initial(trainer.flat.vector), 3):
            found.append((made, scoring.scores()))
    for made, scores in found:
        trainer.flat.load(made.before.theta)
        slow = one_backward_per_example(trainer, parts, trainer.tokens(made.examples), directions)
        assert_close(scores, slow, 1e-12)


def a_stack_of_removals_is_plain_training_with_weights_0(make_trainer, architecture, optimizer):
    trainer = make_trainer(ARCHITECTURES[architecture], OPTIMIZERS[optimizer])
    start = initial(trainer)
    expected = plain(trainer, REMOVED, start)
    assert_equal(stacked(trainer, REMOVED, start, rows=3, workers=2), expected)
    assert not torch.allclose(expected[0], expected[3], rtol=1e-3), "removal changes something"
