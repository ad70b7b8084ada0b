"""Products with the generalised Gauss–Newton matrix of the mean training loss, exactly and without forming it.

With z_ij the logits from which target token j of example i is predicted, J_ij = ∂z_ij/∂θ and p = softmax(z),

    G = (1/n) Σ_i (1/(T−1)) Σ_j J_ijᵀ (diag p_ij − p_ij p_ijᵀ) J_ij

symmetric and positive semidefinite; the Hessian without the curvature of the logits themselves, and the Hessian where
logits are linear in θ. It is also the Fisher matrix (labels drawn from the model).

Cost of a product: 2 to 3 training steps of the same examples (two forwards, one of them with tangents, and a backward).
Source: Schraudolph 2002; Martens 2010, 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call, jvp, vjp

from mech_pipeline.training.flat import FlatModel, flatten
from mech_pipeline.training.seeds import torch_generator
from mech_pipeline.training.update.optimizer import Vector

Linearised = tuple[Tensor, Callable[[Tensor], tuple[dict[str, Tensor]]]]
"""Logits, and the pull-back of their gradients to parameters."""


@dataclass(frozen=True)
class GaussNewton:
    """G of some examples at the parameters that the model holds.

    Attributes:
        tokens: the examples.
        chunk: examples whose logits and activations are held at once.
    """

    flat: FlatModel
    tokens: Int[Tensor, "example token"]
    chunk: int

    def product(self, v: Vector) -> Vector:
        """G v."""
        parts = [self._sum_over(part, v) for part in self.tokens.split(self.chunk)]
        return torch.stack(parts).sum(0) / self.tokens[:, 1:].numel()

    def mean_diagonal(self, seed: int, probes: int) -> float:
        """tr(G) / P by Hutchinson's estimate with random signs, E zᵀ G z = tr G; `probes` products.

        Relative standard error at most √(2 / (probes · effective rank of G)).
        """
        generator = torch_generator(seed, "trace of the Gauss-Newton matrix")
        found = []
        for _ in range(probes):
            signs = torch.randint(0, 2, self.flat.vector.shape, generator=generator) * 2.0 - 1
            z = signs.to(self.flat.vector)
            found.append(float(z.double() @ self.product(z).double()))
        return sum(found) / probes / self.flat.vector.numel()

    def _sum_over(self, tokens: Int[Tensor, "example token"], v: Vector) -> Vector:
        """Σ_ij J_ijᵀ (diag p − p pᵀ) J_ij v of some examples."""
        parameters = {name: part.detach() for name, part in self.flat.named(self.flat.vector).items()}
        tangents = self.flat.named(v)

        def logits(named: dict[str, Tensor]) -> Float[Tensor, "example token vocabulary"]:
            found: Tensor = functional_call(self.flat.model, named, (tokens[:, :-1],))
            return found

        z, pull = cast(Linearised, vjp(logits, parameters))
        _, moved = cast(tuple[Tensor, Tensor], jvp(logits, (parameters,), (tangents,)))
        p = torch.softmax(z.detach(), dim=-1)
        curved = p * (moved - (p * moved).sum(-1, keepdim=True))
        (found,) = pull(curved)
        return flatten([found[slot.name] for slot in self.flat.slots], self.flat.parameters).detach()
