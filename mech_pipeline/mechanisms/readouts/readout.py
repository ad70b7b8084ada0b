"""A readout that knows what of a model it needs; called like a function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.mechanisms.requirements import Requirement

Data = TypeVar("Data")


@dataclass(frozen=True)
class Readout(Generic[Data]):
    """A differentiable number of a model and probe data.

    Attributes:
        compute: the number.
        requires: what of a model it needs.
    """

    compute: Callable[[nn.Module, Data], Float[Tensor, ""]]
    requires: Requirement

    def __call__(self, model: nn.Module, data: Data) -> Float[Tensor, ""]:
        """The number, at the model's present parameters."""
        return self.compute(model, data)
