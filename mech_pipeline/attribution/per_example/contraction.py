"""⟨∇ℓ_i, V⟩ for every example i, direction V and component, and for every token as well.

For a linear layer with input a and output gradient g the gradient of example i is Σ_t g_{i,t} a_{i,t}ᵀ, so

    ⟨∇_W ℓ_i, V⟩ = Σ_t g_{i,t}ᵀ V a_{i,t}.

Not summing over output (or input) units splits the result by head or neuron at no cost; not summing over t splits it by
the *position whose activations were used* (not by the token whose loss it was: that is `target_tokens.py`).

Cost in forward+backward passes of the same data, capture included, 8 directions, 2 layers of width 128: per example
1.15, per token 2.6 (`benchmarks/attribution.py`; ways and operation counts in `outer_products.py`). Agrees with one
backward per example to 1e-6 in float32. Sources: Goodfellow 2015 (per-example gradient norms), Wang et al. 2024 (ghost
dot product).
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.layer_sums import in_dtype, sums_per_example, sums_per_token
from mech_pipeline.attribution.per_example.units import parts_of
from mech_pipeline.training.flat import FlatModel


class Contraction:
    """Contracts captured factors with directions in parameter space. A tied parameter counts wherever it is used.

    Args:
        only: glob patterns of component names (`L1H*.K`, `L0N3.*`) to which directions are confined; what holds none of
            them is skipped, so one head costs its share. None: all components.
        within: names of the modules that count; none: all, and all must be of a known kind.

    Attributes:
        names: the components on the last axis of results.
        modules: names of the modules whose factors are needed, for `Capture` and `example_factors` of `capture.py`.

    Raises:
        MechError: a pattern fits no component.
    """

    def __init__(
        self,
        flat: FlatModel,
        components: Components,
        only: Sequence[str] | None = None,
        within: Collection[str] | None = None,
    ) -> None:
        selected = None if only is None else components.matching(only)
        self.names = components.names if selected is None else tuple(components.names[i] for i in selected)
        self._parts = parts_of(flat, components, selected, within)
        self.modules = frozenset(self._parts)
        self._modules = dict(flat.model.named_modules())

    def __call__(
        self, factors: Factors, directions: Float[Tensor, "direction parameter"]
    ) -> Float[Tensor, "direction example component"]:
        """⟨∇ℓ_i, V⟩ split by component, times whatever scaled ℓ_i when the factors were made.

        `Capture` in a training step: the batch mean's gradient was captured, so 1/B is in it. `example_factors`: 1.
        """
        examples = next(iter(factors.values()))[1].shape[0]
        shape = (len(directions), examples, len(self.names))
        total = torch.zeros(shape, dtype=torch.float64, device=directions.device)
        for name, (value, gradient) in factors.items():
            self.add(total, name, value, gradient, directions)
        return total

    def add(
        self,
        total: Float[Tensor, "direction example component"],
        name: str,
        value: Shaped[Tensor, "example token ..."],
        gradient: Float[Tensor, "example token out"],
        directions: Float[Tensor, "direction parameter"],
    ) -> None:
        """Adds what one module contributes; a module without the wanted components adds nothing."""
        value, gradient = in_dtype(directions.dtype, value, gradient)
        for part in self._parts.get(name, ()):
            v = part.direction(directions)
            total.index_add_(
                2, part.component, sums_per_example(self._modules[name], part, value, gradient, v).double()
            )

    def per_token(
        self, factors: Factors, directions: Float[Tensor, "direction parameter"], *, components: bool = False
    ) -> Float[Tensor, "direction example token"] | Float[Tensor, "direction example token component"]:
        """The same split by position t, the one whose activations were used; its sum over t is the example's score.

        Args:
            components: split by component as well.
        """
        examples, tokens = next(iter(factors.values()))[1].shape[:2]
        shape = (len(directions), examples, tokens) + ((len(self.names),) if components else ())
        total = torch.zeros(shape, dtype=torch.float64, device=directions.device)
        wanted = [(name, part) for name in factors for part in self._parts.get(name, ())]
        for name, part in wanted:
            value, gradient = in_dtype(directions.dtype, *factors[name])
            split = components and len(part.component) > 1
            found = sums_per_token(self._modules[name], part, value, gradient, part.direction(directions), split=split)
            if components:
                total.index_add_(3, part.component, found.double())
            else:
                total += found[..., 0]
        return total
