"""First-order scores against the exact influence, and what all estimators have in common."""

import math
import re

import pytest
import torch

from mech_pipeline.attribution.estimators.agreement import agreement
from mech_pipeline.attribution.estimators.gradient_dot import gradient_dot_scores, lasting_rates
from mech_pipeline.attribution.estimators.methods import METHODS
from mech_pipeline.attribution.estimators.products import ExampleProducts
from mech_pipeline.attribution.estimators.scores import UpdateScores, example_totals
from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.replay import Replayed
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, gradients_of, trainer_of

SGD = Optimizer(kind="sgd", learning_rate=1.0, warmup_steps=0, momentum=0.0, weight_decay=0.0, clip_norm=None)
NEARLY_SGD = Optimizer(learning_rate=1.0, warmup_steps=2, weight_decay=0.0, clip_norm=None, eps_root=1e4)
"""AdamW whose scaling is 1/100 whatever the gradients."""


def exact_and_first_order(trainer, probe, start, steps, method):
    """(exact influence, first-order scores) of all updates with a checkpoint only at both ends, [update, example]."""
    updates = list(trainer.updates(start, start.step + steps))
    gradients = gradients_of(trainer, probe)
    states = {state.step: state for state in (start, updates[-1].after)}
    target = Target("M", updates[-1].after.step, gradients(updates[-1].after)[0])
    swept = list(influence_sweep(trainer, [target], [lambda: [Replayed(update) for update in updates]]))
    exact = torch.stack([part.scores for part in reversed(swept)])
    found = list(gradient_dot_scores(trainer, sorted(states), states.__getitem__, gradients, method))
    assert [part.step for part in found] == [update.before.step for update in updates]
    assert all(torch.equal(part.examples, update.examples) for part, update in zip(found, updates, strict=True))
    return exact, torch.stack([part.scores[0] for part in found])


def relative_error(exact, approximate):
    return float((exact - approximate).norm() / exact.norm())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_dot_of_one_sgd_update_tends_to_the_exact_influence(tiny_probe, architecture):
    errors = []
    for rate in (1e-5, 1e-6):
        trainer = trainer_of(ARCHITECTURES[architecture], SGD.model_copy(update={"learning_rate": rate}))
        start = State.initial(trainer.flat.vector)
        errors.append(relative_error(*exact_and_first_order(trainer, tiny_probe, start, 1, "gradient_dot")))
    assert errors[1] < 1e-3
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.2), "what is left out is of second order"


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        (SGD.model_copy(update={"momentum": 0.8, "warmup_steps": 3}), "gradient_dot"),
        (SGD.model_copy(update={"momentum": 0.8, "warmup_steps": 3}), "gradient_dot_adam"),
        (NEARLY_SGD, "gradient_dot_adam"),
    ],
    ids=["sgd", "sgd, scaling 1", "adamw"],
)
def test_momentum_is_counted_until_the_target(tiny_probe, optimizer, method, steps):
    trainer = trainer_of(optimizer=optimizer.model_copy(update={"learning_rate": 1e-6}))
    start = State.initial(trainer.flat.vector)
    assert relative_error(*exact_and_first_order(trainer, tiny_probe, start, steps, method)) < 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adams_own_scaling_is_used_where_the_second_moment_stands_still(tiny_probe, architecture):
    """With β₂ = 1 − 1e-9 and a billion updates behind it, no batch moves v, and D differs between parameters."""
    optimizer = Optimizer(learning_rate=1e-6, weight_decay=0.0, clip_norm=None, beta2=1 - 1e-9)
    trainer = trainer_of(ARCHITECTURES[architecture], optimizer)
    theta = trainer.flat.vector.clone()
    moments = torch.rand(len(theta), generator=torch.Generator().manual_seed(0), dtype=theta.dtype) + 0.1
    start = State(10**9, theta, torch.zeros_like(theta), moments)
    exact, scaled = exact_and_first_order(trainer, tiny_probe, start, 1, "gradient_dot_adam")
    assert relative_error(exact, scaled) < 1e-4
    _, plain = exact_and_first_order(trainer, tiny_probe, start, 1, "gradient_dot")
    assert relative_error(exact, plain) > 0.1


def test_a_gradient_lasts_for_the_learning_rate_in_adams_steady_state():
    adam = Optimizer(learning_rate=0.5, warmup_steps=0)
    assert lasting_rates(adam, 1000, 1200)[0] == pytest.approx(0.5, rel=1e-6)
    sgd = Optimizer(kind="sgd", learning_rate=0.5, warmup_steps=0, momentum=0.9)
    assert lasting_rates(sgd, 0, 300)[0] == pytest.approx(0.5 / (1 - 0.9), rel=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_do_not_depend_on_who_shares_the_batch(architecture):
    trainer = trainer_of(ARCHITECTURES[architecture])
    tokens = trainer.tokens(torch.arange(7))
    directions = torch.randn(3, len(trainer.flat.vector), dtype=torch.float64)
    together = ExampleProducts(trainer.flat)(tokens, directions)
    alone = ExampleProducts(trainer.flat, chunk=1)(tokens, directions)
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    one = trainer.flat.gradient(example_losses(trainer.flat.model, tokens[3:4]).sum())
    torch.testing.assert_close(together[:, 3], directions @ one, rtol=1e-10, atol=1e-12)


def test_scores_do_not_depend_on_where_a_checkpoint_repeats_the_state(tiny_probe):
    """An untrained run has the same state everywhere, so more checkpoints change nothing."""
    trainer = trainer_of(optimizer=SGD.model_copy(update={"learning_rate": 1e-30}))
    states = {0: State.initial(trainer.flat.vector)}
    for made in trainer.updates(states[0], 4):
        states[made.after.step] = made.after
    gradients = gradients_of(trainer, tiny_probe)
    few = list(gradient_dot_scores(trainer, [0, 4], states.__getitem__, gradients))
    many = list(gradient_dot_scores(trainer, [0, 1, 3, 4], states.__getitem__, gradients))
    for one, other in zip(few, many, strict=True):
        torch.testing.assert_close(one.scores, other.scores)


def test_clip_factors_scale_their_updates_and_must_be_complete(tiny_probe):
    trainer = trainer_of(optimizer=SGD)
    states = {
        step: State(step, trainer.flat.vector.clone(), *[torch.zeros_like(trainer.flat.vector)] * 2) for step in (0, 2)
    }
    arguments = trainer, [0, 2], states.__getitem__, gradients_of(trainer, tiny_probe)
    plain = list(gradient_dot_scores(*arguments))
    clipped = list(gradient_dot_scores(*arguments, clip_factors={0: 0.5, 1: 1.0}))
    torch.testing.assert_close(clipped[0].scores, plain[0].scores / 2)
    torch.testing.assert_close(clipped[1].scores, plain[1].scores)
    with pytest.raises(MechError, match="no clip factor of update 1"):
        list(gradient_dot_scores(*arguments, clip_factors={0: 0.5}))


def test_borders_say_what_is_wrong(tiny_probe):
    trainer = trainer_of(optimizer=SGD)
    gradients = gradients_of(trainer, tiny_probe)
    with pytest.raises(MechError, match="rising order"):
        list(gradient_dot_scores(trainer, [4, 2], lambda step: None, gradients))
    muon = trainer_of(optimizer=Optimizer(kind="muon"))
    with pytest.raises(MechError, match="muon"):
        list(gradient_dot_scores(muon, [0, 2], lambda step: None, gradients))


def test_totals_add_up_over_updates_and_repeated_examples():
    updates = [
        UpdateScores(0, torch.tensor([1, 1]), torch.tensor([[1.0, 2.0]])),
        UpdateScores(1, torch.tensor([0, 1]), torch.tensor([[5.0, 3.0]])),
    ]
    assert example_totals(updates, 3).tolist() == [[5.0, 6.0, 0.0]]


def test_agreement_of_equal_and_reversed_orders():
    scores = torch.randn(50, generator=torch.Generator().manual_seed(0))
    same = agreement(scores, scores.exp())
    assert (same.correlation, same.low, same.high) == pytest.approx((1, 1, 1))
    assert agreement(scores, -scores).correlation == pytest.approx(-1)


def test_agreement_with_a_constant_is_undefined():
    found = agreement(torch.zeros(9), torch.arange(9.0))
    assert all(math.isnan(value) for value in (found.correlation, found.low, found.high))
    assert math.isnan(agreement(torch.ones(1), torch.ones(1)).correlation)
    with pytest.raises(ValueError, match="not finite"):
        agreement(torch.tensor([1.0, float("nan")]), torch.ones(2))


def test_agreement_interval_covers_the_correlation_of_the_population():
    """Normal pairs of correlation ρ have Spearman correlation 6/π asin(ρ/2)."""
    rho, trials = 0.6, 50
    truth = 6 / math.pi * math.asin(rho / 2)
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for seed in range(trials):
        x, noise = torch.randn(2, 60, generator=generator)
        found = agreement(x, rho * x + (1 - rho**2) ** 0.5 * noise, seed=seed, resamples=100)
        covered += found.low <= truth <= found.high
    assert covered >= 42, "47.5 are expected, the standard deviation is 1.5; 100 resamples cost a little"


def test_every_method_says_what_it_means_costs_and_is_good_for():
    assert set(METHODS) == {
        "adjoint",
        "adjoint_mean",
        "gradient_dot",
        "gradient_dot_adam",
        "gauss_newton",
        "ekfac",
        "sketch",
    }
    for field in ("meaning", "when"):
        assert len({getattr(method, field) for method in METHODS.values()}) == len(METHODS), f"two have one {field}"
    for name, method in METHODS.items():
        assert re.search(r"\d", method.cost), f"the cost of {name} is a number of backwards"
        assert min(len(method.meaning.split()), len(method.when.split())) > 5, f"{name} is told in a sentence"
