"""Sequences that repeat themselves: what mechanisms and detectors of induction look at."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Sequences that repeat themselves.

    Attributes:
        tokens: token ids.
        period: position at which the repetition starts, per sequence.
    """

    tokens: Int[Tensor, "example token"]
    period: Int[Tensor, " example"]
