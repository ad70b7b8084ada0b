"""Probe sequences: held-out text, tiled, and random tokens, repeated. Never trained on."""

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


@dataclass(frozen=True)
class Probe:
    """All probe data of a run.

    Attributes:
        tiled: snippets of held-out documents, repeated.
        random: random tokens, repeated once with random period.
    """

    tiled: Sequences
    random: Sequences
