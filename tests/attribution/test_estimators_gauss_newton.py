"""Gauss–Newton influence against dense algebra, and against really moved optima."""

import pytest
import torch
from torch import nn

from mech_pipeline.attribution.estimators.conjugate_gradient import conjugate_gradient
from mech_pipeline.attribution.estimators.curvature import GaussNewton
from mech_pipeline.attribution.estimators.gauss_newton import Settings, gauss_newton_scores
from mech_pipeline.attribution.estimators.scores import example_totals
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import State
from tests.support.models import ARCHITECTURES, trainer_of
from tests.support.per_example import by_jacobian

WORDS, CONTEXT, POOL = 5, 8, 6


class Bigram(nn.Module):
    """Logits that are linear in the parameters: a row per token."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(WORDS, WORDS)

    def forward(self, tokens):
        return self.table(tokens)


@pytest.fixture
def bigram():
    """A trainer whose every update sees the whole pool once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flat = FlatModel(Bigram().double())
        pool = torch.randint(0, WORDS, (POOL, CONTEXT))
    return Trainer(flat, Optimizer(kind="sgd"), Training(steps=20, batch=POOL), pool, seed=0)


def state_at(trainer, step, theta=None):
    theta = trainer.flat.vector if theta is None else theta
    return State(step, theta.clone(), torch.zeros_like(theta), torch.zeros_like(theta))


def dense(curvature):
    """G as a matrix."""
    return torch.stack([curvature.product(row) for row in torch.eye(len(curvature.flat.vector), dtype=torch.float64)])


def loss_of(trainer, weights, ridge):
    """θ → (1/N) Σ w_i ℓ_i + ridge/2 ‖θ‖², for a bigram model."""

    def loss(theta):
        logits = theta.view(WORDS, WORDS)[trainer.pool[:, :-1]]
        taken = torch.log_softmax(logits, -1).gather(-1, trainer.pool[:, 1:, None])[..., 0]
        return (-taken.mean(1) * weights).mean() + ridge / 2 * theta @ theta

    return loss


def optimum(trainer, weights, ridge):
    """Newton's method to rounding."""
    loss = loss_of(trainer, weights, ridge)
    theta = torch.zeros(WORDS * WORDS, dtype=torch.float64)
    for _ in range(30):
        gradient = torch.autograd.functional.jacobian(loss, theta)
        theta = theta - torch.linalg.solve(torch.autograd.functional.hessian(loss, theta), gradient)
    return theta


def test_gauss_newton_is_the_hessian_where_logits_are_linear(bigram):
    curvature = GaussNewton(bigram.flat, bigram.pool, chunk=4)
    loss = loss_of(bigram, torch.ones(POOL, dtype=torch.float64), 0.0)
    hessian = torch.autograd.functional.hessian(loss, bigram.flat.vector.clone())
    torch.testing.assert_close(dense(curvature), hessian, rtol=1e-10, atol=1e-14)
    estimates = torch.tensor([curvature.mean_diagonal(seed, probes=4) for seed in range(50)])
    assert float(estimates.mean()) == pytest.approx(float(hessian.diag().mean()), rel=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_are_those_of_the_explicit_matrix_which_is_symmetric_and_positive(architecture):
    trainer = trainer_of(ARCHITECTURES[architecture])
    tokens = trainer.tokens(torch.arange(3))
    matrix = by_jacobian(trainer, tokens)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-9, atol=1e-12)
    vectors = torch.randn(2, len(matrix), dtype=torch.float64)
    for chunk in (1, 2, 64):
        found = torch.stack([GaussNewton(trainer.flat, tokens, chunk).product(vector) for vector in vectors])
        torch.testing.assert_close(found, vectors @ matrix, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_a_dense_solve(architecture):
    trainer = trainer_of(ARCHITECTURES[architecture])
    steps, batch = 2, 4
    gradients = torch.randn(2, len(trainer.flat.vector), dtype=torch.float64)
    settings = Settings(sample=steps * batch, iterations=1000, tolerance=1e-9, damping=3.0)
    found = gauss_newton_scores(trainer, state_at(trainer, steps), gradients, settings)
    assert max(found.residuals) <= 1e-9
    seen = torch.cat([trainer.batch(step) for step in range(steps)])
    matrix = by_jacobian(trainer, trainer.tokens(seen))
    x = torch.linalg.solve(matrix + found.damping * torch.eye(len(matrix), dtype=torch.float64), gradients.T)
    for update in found.updates:
        for column, example in enumerate(update.examples):
            loss = example_losses(trainer.flat.model, trainer.pool[example][None]).sum()
            expected = -(trainer.flat.gradient(loss) @ x) / len(seen)
            torch.testing.assert_close(update.scores[:, column], expected, rtol=1e-6, atol=1e-8)


def test_scores_are_the_derivative_of_the_optimum_by_an_examples_weight(bigram):
    """Ridge regression of the logits, retrained to rounding with one weight moved both ways."""
    ridge, times, moved, h = 0.02, 3, 2, 1e-5
    ones = torch.ones(POOL, dtype=torch.float64)
    bigram.flat.load(optimum(bigram, ones, ridge))
    settings = Settings(sample=10**6, tolerance=1e-12, iterations=1000)
    diagonal = GaussNewton(bigram.flat, bigram.pool, chunk=64).mean_diagonal(bigram.seed, settings.probes)
    settings = Settings(sample=10**6, tolerance=1e-12, iterations=1000, damping=ridge / diagonal)
    direction = torch.randn(1, WORDS * WORDS, dtype=torch.float64)
    found = gauss_newton_scores(bigram, state_at(bigram, times), direction, settings)
    assert found.damping == pytest.approx(ridge)
    bump = h * torch.eye(POOL, dtype=torch.float64)[moved]
    difference = optimum(bigram, ones + bump, ridge) - optimum(bigram, ones - bump, ridge)
    total = example_totals(found.updates, POOL)[0, moved]
    assert float(total) == pytest.approx(float(direction[0] @ difference) / (2 * h), rel=1e-5)


def test_an_examples_score_is_shared_evenly_by_its_updates():
    trainer = trainer_of()
    gradients = torch.randn(1, len(trainer.flat.vector), dtype=torch.float64)
    found = gauss_newton_scores(trainer, state_at(trainer, 12), gradients, Settings(iterations=5))
    by_example: dict[int, set[float]] = {}
    for update in found.updates:
        for example, score in zip(update.examples.tolist(), update.scores[0].tolist(), strict=True):
            by_example.setdefault(example, set()).add(score)
    assert len(by_example) == 24
    assert all(len(scores) == 1 for scores in by_example.values())


def test_what_did_not_converge_says_so():
    trainer = trainer_of()
    gradients = torch.randn(2, len(trainer.flat.vector), dtype=torch.float64)
    counts = []
    found = gauss_newton_scores(
        trainer, state_at(trainer, 2), gradients, Settings(iterations=2, tolerance=1e-9), counts.append
    )
    assert all(residual > 1e-9 for residual in found.residuals)
    assert found.iterations == (2, 2)
    assert counts == [1, 2, 3, 4]


def test_conjugate_gradients_solve_a_known_system_and_leave_zero_alone():
    matrix = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
    b = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    found = conjugate_gradient(lambda v: matrix @ v, b, 1.0, tolerance=1e-12, iterations=10)
    torch.testing.assert_close(found.x, b / (matrix.diag() + 1))
    assert found.converged
    assert found.iterations <= 4
    nothing = conjugate_gradient(lambda v: matrix @ v, torch.zeros_like(b), 1.0, tolerance=1e-12, iterations=10)
    assert (nothing.iterations, nothing.residual, nothing.converged) == (0, 0.0, True)


def test_influence_at_step_0_is_refused():
    trainer = trainer_of()
    with pytest.raises(MechError, match="step 0"):
        gauss_newton_scores(trainer, state_at(trainer, 0), torch.ones(1, len(trainer.flat.vector), dtype=torch.float64))
