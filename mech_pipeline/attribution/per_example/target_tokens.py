"""⟨∇ℓ_i, V⟩ split by the token whose loss it is, for one direction V, by forward-mode differentiation.

    score(i, j) = d/dε ℓ_{i,j}(θ + ε V) / (T − 1),     ℓ_{i,j} = −log p(token j | tokens before j),  j = 1 … T−1

Its sum over j is the example's ⟨∇ℓ_i, V⟩. This is the meaning of "per token" that example weights have, and it is
another split than `Contraction.per_token`, which asks through which position's activations the gradient went.

Cost per direction: one forward with tangents, as much arithmetic as a forward and backward (1.2 to 1.5 of its time);
several directions share nothing. Attention must be the math kernel (the fused one has no forward mode).
Source: forward mode as in Baydin et al. 2022.
"""

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import next_token_losses


def target_scores(
    flat: FlatModel, tokens: Int[Tensor, "example token"], direction: Float[Tensor, " parameter"]
) -> Float[Tensor, "example target"]:
    """Derivative of every next-token loss along a direction, divided by their number; nats per unit of the direction.

    Column j − 1 belongs to token j, as in `next_token_losses`. Parameters are those that the model holds now.
    """
    values, tangents = flat.named(flat.vector.detach()), flat.named(direction)
    with torch.no_grad(), forward_ad.dual_level():
        duals = {f"model.{name}": forward_ad.make_dual(value, tangents[name]) for name, value in values.items()}
        losses = functional_call(_Losses(flat.model), duals, (tokens,))
        tangent = forward_ad.unpack_dual(losses).tangent
    assert tangent is not None, "every loss depends on the parameters"
    return tangent / losses.shape[1]


class _Losses(nn.Module):
    """From tokens to next-token losses, so that parameters can be exchanged."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example target"]:
        return next_token_losses(self.model, tokens)
