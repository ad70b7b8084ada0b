"""What readouts read: token sequences, and which of their positions matter."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mech_pipeline.errors import MechError


@dataclass(frozen=True)
class Marked:
    """Sequences some of whose positions are marked: targets of a loss, places where a neuron is read.

    Attributes:
        tokens: token ids.
        chosen: the marked positions.
    """

    tokens: Int[Tensor, "example token"]
    chosen: Bool[Tensor, "example token"]

    def __post_init__(self) -> None:
        if not bool(self.chosen.any()):
            raise MechError("no position of its probe data is marked", "choose at least one")


@dataclass(frozen=True)
class Placed:
    """Sequences with one position each that matters.

    Attributes:
        tokens: token ids.
        position: counted from 0.
    """

    tokens: Int[Tensor, "example token"]
    position: Int[Tensor, " example"]


@dataclass(frozen=True)
class Contrast(Placed):
    """Sequences with a right and a wrong next token at a position.

    Attributes:
        correct: the token that should follow.
        wrong: the token that it is compared with.
    """

    correct: Int[Tensor, " example"]
    wrong: Int[Tensor, " example"]


@dataclass(frozen=True)
class Attended:
    """Sequences with the keys that each query should attend to.

    Attributes:
        tokens: token ids.
        targets: true where the query should attend to the key; queries without a key do not count.
    """

    tokens: Int[Tensor, "example token"]
    targets: Bool[Tensor, "example query key"]

    def __post_init__(self) -> None:
        if not bool(self.targets.any()):
            raise MechError("no query of its probe data has a key to attend to", "name at least one pair")


def attended(
    tokens: Int[Tensor, "example token"], query: Int[Tensor, " example"], key: Int[Tensor, " example"]
) -> Attended:
    """One query and one key for each sequence."""
    count, length = tokens.shape
    targets = torch.zeros(count, length, length, dtype=torch.bool, device=tokens.device)
    targets[torch.arange(count), query, key] = True
    return Attended(tokens, targets)
