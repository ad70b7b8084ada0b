"""The gradient of some examples of a batch as one vector, from the batch's factors: no forward or backward of their own.

Cost: the examples' share of the batch's weight gradients.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.layer_sums import in_dtype, matrix_sides, vector_gradient
from mech_pipeline.attribution.per_example.units import Part, parts_of
from mech_pipeline.training.flat import FlatModel


class SummedGradient:
    """Σ_i ∇ℓ_i over chosen examples, times whatever scaled ℓ_i when the factors were made.

    Raises:
        TypeError: a module with parameters is of a kind whose per-example gradient is not known.
    """

    def __init__(self, flat: FlatModel) -> None:
        self._like = flat.vector
        self._parts = parts_of(flat, Components(("all",), torch.zeros(len(flat.vector), dtype=torch.long)), None)
        self._modules = dict(flat.model.named_modules())

    def __call__(self, factors: Factors, examples: Int[Tensor, " chosen"]) -> Float[Tensor, " parameter"]:
        """The gradient of the examples at these places of the batch."""
        total = torch.zeros_like(self._like)
        for name, captured in factors.items():
            value, gradient = in_dtype(total.dtype, *captured)
            value, gradient = value.expand(len(gradient), *value.shape[1:])[examples], gradient[examples]
            for part in self._parts.get(name, ()):
                own = total[part.begin : part.end].view(part.shape)
                _add(own, self._modules[name], part, value, gradient)
        return total


def _add(own: Tensor, module: nn.Module, part: Part, value: Tensor, gradient: Tensor) -> None:
    """Adds what one module does to one parameter."""
    if isinstance(module, nn.Embedding):
        own.index_add_(0, value.flatten(), gradient.flatten(0, 1))
    elif part.kind == "weight" and len(part.shape) == 2:
        left, right = matrix_sides(module, value, gradient)
        own += left.flatten(0, 1).T @ right.flatten(0, 1)
    else:
        own += vector_gradient(module, part, value, gradient).sum((0, 1)).view(part.shape)
