"""Do two estimators rank examples alike? Spearman's rank correlation with a bootstrap interval over examples.

1: the same order; 0: unrelated; −1: reversed. Where two cheap estimators disagree, at least one is wrong; where they
agree, both may still be: they share what both leave out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.spec.seeds import numpy_generator


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of two lists of scores.

    Attributes:
        correlation: in [−1, 1]; NaN if undefined: fewer than two examples, or a list ranks nothing (is constant).
        low: 2.5 % bootstrap quantile over examples; NaN as above.
        high: 97.5 % quantile.
        examples: how many were compared.
    """

    correlation: float
    low: float
    high: float
    examples: int


def agreement(
    first: Float[Tensor, " example"], second: Float[Tensor, " example"], *, seed: int = 0, resamples: int = 1000
) -> Agreement:
    """Spearman correlation between two estimators' totals of the same examples.

    Cost: one sort of the examples per resample.

    Args:
        seed: of the bootstrap.

    Raises:
        ValueError: a score is not finite: compare only examples that both have a number for.

    >>> import torch
    >>> agreement(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 40.0])).correlation
    1.0
    """
    pair = np.stack([first.double().cpu().numpy(), second.double().cpu().numpy()])
    if not np.isfinite(pair).all():
        raise ValueError("scores that are not finite have no rank")
    count = pair.shape[1]
    if count < 2 or _constant(pair):
        return Agreement(float("nan"), float("nan"), float("nan"), count)
    generator = numpy_generator(seed, "agreement bootstrap")
    drawn = (pair[:, generator.integers(0, count, count)] for _ in range(resamples))
    found = [_spearman(sample) for sample in drawn if not _constant(sample)]
    low, high = np.quantile(found, [0.025, 0.975]) if found else (float("nan"), float("nan"))
    return Agreement(_spearman(pair), float(low), float(high), count)


def _spearman(pair: Float[np.ndarray, "2 example"]) -> float:
    from scipy import stats  # a second to import

    return float(stats.spearmanr(pair[0], pair[1]).statistic)


def _constant(pair: Float[np.ndarray, "2 example"]) -> bool:
    """Whether either list has the same value everywhere."""
    return bool((pair == pair[:, :1]).all(axis=1).any())
