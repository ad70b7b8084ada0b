"""Conjugate gradients for (G + λ) x = b with G known by its products only.

The residual is a number that callers pass on: a solution that did not converge is still a usable direction, but never
looks like one that did. Source: Hestenes & Stiefel 1952; Martens 2010 for Gauss–Newton matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.update.optimizer import Vector


@dataclass(frozen=True)
class Solution:
    """What the iteration reached.

    Attributes:
        x: the best solution seen.
        residual: ‖b − (G + λ) x‖ / ‖b‖ as the iteration tracked it; 0 for b = 0.
        iterations: products with G.
        converged: whether the residual is within the tolerance.
    """

    x: Vector
    residual: float
    iterations: int
    converged: bool


def conjugate_gradient(
    product: Callable[[Vector], Vector],
    b: Vector,
    damping: float,
    *,
    tolerance: float,
    iterations: int,
    report: Report = ignore_progress,
) -> Solution:
    """Solves (G + λ) x = b for symmetric positive semidefinite G; sums in float64.

    Args:
        product: v ↦ G v, in b's precision.
        damping: λ > 0.
        tolerance: residual to stop at.
        iterations: products to stop after.
        report: called with the number of products done.
    """
    right = b.double()
    norm = float(right.norm())
    x, residual = torch.zeros_like(right), right.clone()
    best, best_residual, done = x, 1.0 if norm else 0.0, 0
    way, squared = residual.clone(), float(residual @ residual)
    while done < iterations and best_residual > tolerance:
        applied = product(way.to(b.dtype)).double() + damping * way
        done += 1
        report(done)
        curvature = float(way @ applied)
        if not curvature > 0:  # rounding has taken over: G is semidefinite and λ positive
            break
        x = x + (squared / curvature) * way
        residual = residual - (squared / curvature) * applied
        squared, before = float(residual @ residual), squared
        if squared**0.5 / norm < best_residual:
            best, best_residual = x, squared**0.5 / norm
        way = residual + (squared / before) * way
    return Solution(best.to(b.dtype), best_residual, done, best_residual <= tolerance)
