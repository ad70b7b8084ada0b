"""EK-FAC by kronfluence: only where an environment with it is named (MECH_EKFAC_PYTHON)."""

import os
import sys

import pytest
import torch

from mech_pipeline.attribution.estimators.ekfac import Settings, ekfac_scores
from mech_pipeline.attribution.estimators.ekfac_environment import PYTHON
from mech_pipeline.attribution.estimators.products import ExampleProducts
from mech_pipeline.errors import MechError
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, trainer_of
from tests.support.per_example import by_jacobian

needs_kronfluence = pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} is not set")


def state_at(trainer, step):
    theta = trainer.flat.vector
    return State(step, theta.clone(), torch.zeros_like(theta), torch.zeros_like(theta))


@pytest.mark.slow
@needs_kronfluence
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_with_overwhelming_damping_scores_are_gradient_products_over_linear_layers(architecture):
    """(G + λ)⁻¹ → 1/λ: checks sign, scale, the handing over of ∇M, biases, and which parameters take part."""
    trainer = trainer_of(ARCHITECTURES[architecture], dtype=torch.float32)
    gradients = torch.randn(2, len(trainer.flat.vector))
    settings, lines = Settings(sample=8, damping=1e6), []
    found = ekfac_scores(
        trainer, state_at(trainer, 6), gradients, ARCHITECTURES[architecture], settings, emit=lines.append
    )
    covered = torch.zeros_like(gradients)
    for slot in trainer.flat.slots:
        if slot.name.rpartition(".")[0] in found.layers:
            covered[:, slot.begin : slot.end] = gradients[:, slot.begin : slot.end]
    assert 0.3 < covered.count_nonzero() / covered.numel() < 1
    seen = torch.cat([trainer.batch(step) for step in range(6)])
    for update in found.updates:
        products = ExampleProducts(trainer.flat)(trainer.tokens(update.examples), covered)
        expected = -products / 1e6 / len(seen)
        torch.testing.assert_close(update.scores.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert len(lines) == 2, "every stage says what it does"


@pytest.mark.slow
@needs_kronfluence
def test_scores_are_near_those_of_a_dense_solve_layer_by_layer():
    """What is left is the Kronecker eigenbasis and drawn labels; a wrong scale of G would be 11 times off."""
    spec = ARCHITECTURES["mlp and layer norm"]
    trainer, double = (trainer_of(spec, dtype=dtype) for dtype in (torch.float32, torch.float64))
    gradient = trainer.flat.gradient(trainer.losses(torch.tensor([20]), 0).sum())
    seen = torch.cat([trainer.batch(step) for step in range(6)])
    matrix = by_jacobian(double, double.tokens(seen))
    damping = 0.1 * float(matrix.diag().mean())
    found = ekfac_scores(trainer, state_at(trainer, 6), gradient[None], spec, Settings(damping=damping))
    x = torch.zeros(1, len(matrix), dtype=torch.float64)
    for layer in found.layers:
        own = torch.cat(
            [torch.arange(s.begin, s.end) for s in trainer.flat.slots if s.name.rpartition(".")[0] == layer]
        )
        block = matrix[own][:, own] + damping * torch.eye(len(own), dtype=torch.float64)
        x[0, own] = torch.linalg.solve(block, gradient[own].double())
    for update in found.updates:
        assert torch.equal(update.examples, trainer.batch(update.step))
    ekfac = torch.cat([update.scores[0] for update in found.updates]).double()
    dense = -ExampleProducts(double.flat)(double.tokens(seen), x)[0] / len(seen)
    assert float(torch.corrcoef(torch.stack([ekfac, dense]))[0, 1]) > 0.97
    assert 0.8 < float(ekfac @ dense / (dense @ dense)) < 1.25


def test_a_missing_environment_says_how_to_make_it(monkeypatch):
    trainer = trainer_of()
    monkeypatch.delenv(PYTHON, raising=False)
    gradients = torch.ones(1, len(trainer.flat.vector), dtype=torch.float64)
    arguments = trainer, state_at(trainer, 2), gradients, ARCHITECTURES["attention-only"]
    with pytest.raises(MechError, match="--no-deps kronfluence==1.0.1"):
        ekfac_scores(*arguments)
    with pytest.raises(MechError, match="no Python at /nowhere/python"):
        ekfac_scores(*arguments, python="/nowhere/python")
    with pytest.raises(MechError, match="lacks kronfluence"):
        ekfac_scores(*arguments, python=sys.executable)
