"""What a change of weights writes, read in the vocabulary: the logit lens of neurons and heads that moved.

    neuron n:  logits = W_U diag(s) C ΔW_out[:, n]             for one more unit of the neuron's activation
    head h:    logits = W_U diag(s) C σ₁ u₁                    ΔW_O[:, h] = Σ_k σ_k u_k v_kᵀ, for one unit of its input along v₁

s is the scale of the final norm and C leaves out what LayerNorm subtracts (the mean over dimensions; the identity for RMS norms):
the direct path to the logits, before the division by the norm's length, which is one positive number for all tokens. u₁ has the
sign with which its largest logit is positive: along it a head writes both ways. What later layers make of it is not asked.
Sources: nostalgebraist 2020 (logit lens); Geva et al. 2022 (output weights of neurons in the vocabulary); Millidge & Black 2022
(singular vectors of heads).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.mechanisms.anatomy import final_norm, unembedding

Lens = Float[Tensor, "vocabulary d_model"]


@dataclass(frozen=True)
class Readout:
    """The tokens that the movements of a layer's units promote most and suppress most.

    Attributes:
        moved: L2 length of what each unit's output weights moved.
        share: of its square, along the direction that is read; 1 for neurons.
        promoted, suppressed: token ids, the strongest first.
        up, down: their logits.
    """

    moved: Float[Tensor, " unit"]
    share: Float[Tensor, " unit"]
    promoted: Int[Tensor, "unit place"]
    suppressed: Int[Tensor, "unit place"]
    up: Float[Tensor, "unit place"]
    down: Float[Tensor, "unit place"]


def lens(model: nn.Module, vocabulary: int) -> Lens:
    """W_U diag(s) C: from what is written into the residual stream to logits.

    Args:
        vocabulary: of the tokenizer; rows beyond it stand for no token.
    """
    norm = final_norm(model)
    scale = getattr(norm, "weight", None)
    read = unembedding(model).detach()[:vocabulary]
    read = read if scale is None else read * scale.detach()
    return read - read.mean(1, keepdim=True) if isinstance(norm, nn.LayerNorm) else read


def neuron_readout(read: Lens, moved: Float[Tensor, "d_model neuron"], count: int) -> Readout:
    """Of each neuron's movement; see the module.

    >>> found = neuron_readout(torch.eye(3), torch.tensor([[0.0], [2.0], [-1.0]]), 1)
    >>> found.promoted.tolist(), found.up.tolist(), found.suppressed.tolist(), found.down.tolist()
    ([[1]], [[2.0]], [[2]], [[-1.0]])
    """
    return _extremes(read @ moved, torch.linalg.vector_norm(moved, dim=0), torch.ones(moved.shape[1]), count)


def head_readout(read: Lens, moved: Float[Tensor, "head d_model d_head"], count: int) -> Readout:
    """Of the leading direction of each head's movement; see the module."""
    left, sizes, _ = torch.linalg.svd(moved, full_matrices=False)
    logits = read @ (left[:, :, 0] * sizes[:, :1]).T
    largest = logits.gather(0, logits.abs().argmax(0, keepdim=True))
    squares = sizes.square()
    share = squares[:, 0] / squares.sum(1).clamp_min(torch.finfo(squares.dtype).tiny)
    return _extremes(logits * torch.where(largest < 0, -1.0, 1.0), squares.sum(1).sqrt(), share, count)


def _extremes(
    logits: Float[Tensor, "vocabulary unit"], moved: Float[Tensor, " unit"], share: Float[Tensor, " unit"], count: int
) -> Readout:
    up, promoted = logits.topk(min(count, len(logits)), dim=0)
    down, suppressed = logits.topk(min(count, len(logits)), dim=0, largest=False)
    return Readout(moved, share, promoted.T, suppressed.T, up.T, down.T)
