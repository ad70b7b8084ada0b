"""⟨∇ℓ_i, V⟩ over whole parameter vectors, for any number of examples and several directions V."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.per_example.capture import example_factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.training.flat import FlatModel

CHUNK = 64
"""Examples whose activations are held at once, unless told otherwise."""


class ExampleProducts:
    """⟨∇ℓ_i(θ), V⟩ at the parameters that the model holds when called.

    Cost: a forward and backward of the examples without weight gradients (0.7 of a training step), then the contraction.

    Args:
        chunk: examples at once.
    """

    def __init__(self, flat: FlatModel, chunk: int = CHUNK) -> None:
        whole = torch.zeros(flat.vector.numel(), dtype=torch.long, device=flat.vector.device)
        self._contraction = Contraction(flat, Components(("all",), whole))
        self._model, self._chunk = flat.model, chunk

    def __call__(
        self, tokens: Int[Tensor, "example token"], directions: Float[Tensor, "direction parameter"]
    ) -> Float[Tensor, "direction example"]:
        """The products in float64; a direction's unit times nats."""
        parts = [
            self._contraction(example_factors(self._model, part), directions)[..., 0]
            for part in tokens.split(self._chunk)
        ]
        return torch.cat(parts, dim=1)
