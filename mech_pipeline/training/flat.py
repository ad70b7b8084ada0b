"""All parameters as one vector: updates, hashes, adjoints and inner products become vector operations.

The model's parameters are views into one buffer, so loading a state is a copy, and no name is ever looked up twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """Where one named parameter lies in the vector."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int


class FlatModel:
    """A module whose parameters are views into `vector`.

    Args:
        model: any module; its parameters are rebound, their values kept. Frozen ones (`requires_grad_(False)`) are left
            out: they are constants of the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.slots: list[Slot] = []
        begin = 0
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, parameter in trained.items():
            end = begin + parameter.numel()
            self.slots.append(Slot(name, tuple(parameter.shape), begin, end))
            begin = end
        self.parameters = list(trained.values())
        self.vector = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        for slot, parameter in zip(self.slots, self.parameters, strict=True):
            parameter.data = self.vector[slot.begin : slot.end].view(slot.shape)

    def load(self, theta: Float[Tensor, " parameter"]) -> None:
        """Sets all parameters."""
        self.vector.copy_(theta)

    def gradient(self, scalar: Tensor) -> Float[Tensor, " parameter"]:
        """∇ scalar at the current parameters; parameters that the scalar does not reach get 0."""
        return flatten(torch.autograd.grad(scalar, self.parameters, allow_unused=True), self.parameters)

    def named(self, vector: Shaped[Tensor, " parameter"]) -> dict[str, Tensor]:
        """Views of a vector under the parameters' names."""
        return {slot.name: vector[slot.begin : slot.end].view(slot.shape) for slot in self.slots}


def flatten(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Float[Tensor, " parameter"]:
    """One vector from per-parameter tensors; missing ones are zeros."""
    return torch.cat(
        [(torch.zeros_like(p) if t is None else t).reshape(-1) for t, p in zip(tensors, like, strict=True)]
    )
