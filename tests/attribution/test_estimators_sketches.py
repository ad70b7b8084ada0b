"""Sketches against exact products: unbiased, and as wrong as they say."""

import pytest
import torch

from mech_pipeline.attribution.estimators.gradient_dot import gradient_dot_scores
from mech_pipeline.attribution.estimators.products import ExampleProducts
from mech_pipeline.attribution.estimators.sketched_scores import sketch_window, sketched_scores
from mech_pipeline.attribution.estimators.sketches import Sketcher, query, sketch_examples
from mech_pipeline.errors import MechError
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, gradients_of, trainer_of

EXAMPLES, SEEDS = 4, 100


def directions_of(trainer, seed=0):
    """A random direction, one gradient, and one in few parameters."""
    size = len(trainer.flat.vector)
    generator = torch.Generator().manual_seed(seed)
    loss = trainer.losses(torch.tensor([20]), 0).sum()
    few = torch.zeros(size, dtype=torch.float64)
    few[torch.randperm(size, generator=generator)[: size // 20]] = 1.0
    return torch.stack([torch.randn(size, generator=generator, dtype=torch.float64), trainer.flat.gradient(loss), few])


def estimates(trainer, directions, dimension, seed, dtype=torch.float16):
    """Queries of freshly made sketches."""
    sketcher = Sketcher(len(trainer.flat.vector), dimension, seed)
    examples = torch.arange(EXAMPLES)
    sketches = sketch_examples(trainer.flat, sketcher, 0, examples, trainer.tokens(examples), dtype)
    return query(sketcher, sketches, directions)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sketches_are_unbiased_and_their_errors_hold(architecture):
    trainer = trainer_of(ARCHITECTURES[architecture])
    directions = directions_of(trainer)
    exact = ExampleProducts(trainer.flat)(trainer.tokens(torch.arange(EXAMPLES)), directions)
    found = [estimates(trainer, directions, 64, seed) for seed in range(SEEDS)]
    values = torch.stack([one.values for one in found])
    errors = torch.stack([one.errors for one in found])
    bias = (values.mean(0) - exact) / (values.std(0) / SEEDS**0.5)
    assert bias.abs().max() < 4.5, "12 t statistics of 99 degrees of freedom"
    covered = ((values - exact).abs() <= 2 * errors).double().mean((0, 2))
    assert covered.min() >= 0.90
    assert covered.max() <= 0.995, "an error bar that always holds says nothing"
    spread = (values - exact).square().mean((0, 2)).sqrt() / errors.mean((0, 2))
    assert spread.min() > 0.6, "errors are not blown up"
    assert spread.max() < 1.2, "examples of one seed err together: the spread itself is known to 7 %"


def test_error_falls_with_the_root_of_the_dimension():
    trainer = trainer_of()
    directions = directions_of(trainer)
    small, large = (estimates(trainer, directions, k, 0).errors.mean() for k in (32, 128))
    assert float(small / large) == pytest.approx(2, rel=0.1)


def test_half_precision_adds_less_than_the_sketchs_own_error():
    trainer = trainer_of()
    directions = directions_of(trainer)
    half = estimates(trainer, directions, 64, 0)
    full = estimates(trainer, directions, 64, 0, torch.float64)
    assert ((half.values - full.values).abs() < 0.02 * full.errors).all()


def test_the_seed_alone_remakes_a_sketcher_and_another_seed_another():
    vector = torch.randn(101, dtype=torch.float64)
    assert torch.equal(Sketcher(101, 16, 3)(vector), Sketcher(101, 16, 3)(vector))
    assert not torch.equal(Sketcher(101, 16, 3)(vector), Sketcher(101, 16, 4)(vector))


def test_a_sketch_of_nothing_is_nothing():
    trainer = trainer_of()
    found = estimates(trainer, torch.zeros(1, len(trainer.flat.vector), dtype=torch.float64), 64, 0)
    assert not found.values.any()
    assert not found.errors.any()


def test_sketched_scores_are_the_first_order_scores_within_their_errors(tiny_probe):
    trainer = trainer_of()
    states = {0: State.initial(trainer.flat.vector)}
    for made in trainer.updates(states[0], 6):
        states[made.after.step] = made.after
    gradients, checkpoints = gradients_of(trainer, tiny_probe), [0, 3, 6]
    sketcher = Sketcher(len(trainer.flat.vector), 256, 0)
    stored = {begin: sketch_window(trainer, sketcher, states[begin], begin + 3) for begin in (0, 3)}
    clip = {step: 0.5 + step / 10 for step in range(6)}
    arguments = checkpoints, states.__getitem__
    exact = list(gradient_dot_scores(trainer, *arguments, gradients, clip_factors=clip))
    found = list(sketched_scores(trainer, sketcher, *arguments, stored.__getitem__, gradients, clip_factors=clip))
    within = [((a.update.scores - b.scores).abs() <= 2 * a.errors) for a, b in zip(found, exact, strict=True)]
    assert [a.update.step for a in found] == list(range(6))
    assert torch.cat(within, dim=1).double().mean() > 0.85
    with pytest.raises(MechError, match="have no sketch"):
        list(sketched_scores(trainer, sketcher, [0, 6], states.__getitem__, stored.__getitem__, gradients))


def test_a_dimension_that_does_not_split_is_refused():
    with pytest.raises(MechError, match="multiple of 4"):
        Sketcher(100, 30, 0)
