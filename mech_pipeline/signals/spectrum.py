"""How many directions, effectively: entropy and participation of a spectrum."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spectral_entropy(values: Float[Tensor, " value"]) -> float:
    """−Σ p ln p of values that are at least 0, divided by ln n: 0, one carries all; 1, all alike. NaN: all are 0.

    >>> round(spectral_entropy(torch.tensor([1.0, 1.0, 1.0, 1.0])), 6), spectral_entropy(torch.tensor([1.0, 0.0]))
    (1.0, 0.0)
    """
    total = float(values.sum())
    if total <= 0 or len(values) < 2:
        return math.nan
    shares = values / total
    return float(-torch.special.xlogy(shares, shares).sum() / math.log(len(values))) + 0.0


def participation_ratio(values: Float[Tensor, " value"]) -> float:
    """(Σ x)² / Σ x²: how many of n values carry their sum, from 1 to n. NaN: all are 0.

    >>> participation_ratio(torch.tensor([2.0, 2.0, 0.0])), participation_ratio(torch.tensor([3.0, 0.0]))
    (2.0, 1.0)
    """
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else math.nan
