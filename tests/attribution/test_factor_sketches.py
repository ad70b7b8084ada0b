"""Sketches straight from factors: linear, the same on every way to them, and cosines within their stated error."""

import pytest
import torch

from mech_pipeline.attribution.per_example.capture import example_factors
from mech_pipeline.attribution.per_example.factor_sketches import WIDTH, FactorSketcher
from mech_pipeline.training.model import example_losses
from tests.support.models import ARCHITECTURES, trainer_of


def gradients(trainer, examples):
    tokens = trainer.tokens(torch.arange(examples))
    return torch.stack([trainer.flat.gradient(example_losses(trainer.flat.model, row[None]).sum()) for row in tokens])


@pytest.mark.parametrize("width", [11, 101, WIDTH])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_from_factors_it_is_the_sketch_of_each_examples_gradient_in_a_metric(architecture, width):
    """Narrow sketches cut weights into many pieces; the widest has more buckets than a piece has numbers."""
    trainer = trainer_of(ARCHITECTURES[architecture])
    sketcher = FactorSketcher(trainer.flat, seed=3, width=width)
    metric = torch.rand(len(trainer.flat.vector), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slow = gradients(trainer, 5)
    factors = example_factors(trainer.flat.model, trainer.tokens(torch.arange(5)))
    plain, scaled = sketcher(factors, [sketcher.signed(torch.ones_like(metric)), sketcher.signed(metric)])
    for row in range(5):
        assert torch.allclose(plain[row], sketcher.vector(slow[row]), rtol=1e-9, atol=1e-13)
        assert torch.allclose(scaled[row], sketcher.vector(metric * slow[row]), rtol=1e-9, atol=1e-13)


def test_every_number_goes_to_one_bucket_with_a_sign():
    trainer = trainer_of()
    sketcher = FactorSketcher(trainer.flat, seed=3, width=101)
    size = len(trainer.flat.vector)
    buckets = torch.zeros(101)
    for place in range(0, size, 7):
        one = torch.zeros(size, dtype=torch.float64)
        one[place] = 1
        found = sketcher.vector(one)
        assert found.abs().sum() == 1
        assert found.count_nonzero() == 1
        buckets += found.abs()
    assert int((buckets > 0).sum()) > 60, "numbers lie in all buckets alike"


def test_cosines_of_gradients_have_the_stated_error_and_no_bias():
    """Over 200 draws of the sketch; √((1 + cos²) / width) is stated. A number does not meet itself, so it may be less."""
    trainer = trainer_of(ARCHITECTURES["mlp and layer norm"])
    width, draws = 101, 200
    slow = gradients(trainer, 6)
    unit = slow / slow.norm(dim=1, keepdim=True)
    true = unit @ unit.T
    off = []
    for seed in range(draws):
        sketcher = FactorSketcher(trainer.flat, seed=seed, width=width)
        sketched = torch.stack([sketcher.vector(row) for row in unit])
        off.append(sketched @ sketched.T - true)
    errors = torch.stack(off)
    stated = ((1 + true.square()) / width).sqrt()
    measured = errors.square().mean(0).sqrt()
    assert bool((errors.mean(0).abs() < 4 * stated / draws**0.5).all())
    pairs = torch.triu(torch.ones_like(true), diagonal=1).bool()
    share = (measured / stated)[pairs]
    assert float(share.max()) < 1.2, share
    assert float(share.mean()) > 0.5, "it is stated far too large"


def test_another_seed_is_another_sketch():
    trainer = trainer_of()
    x = torch.ones_like(trainer.flat.vector)
    same = [FactorSketcher(trainer.flat, seed=seed, width=101).vector(x) for seed in (0, 0, 1)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
