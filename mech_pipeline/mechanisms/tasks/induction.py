"""Induction as differentiable numbers of the model.

copy advantage = mean loss on the first copy − mean loss on the repetition, in nats. 0: repetition does not help;
log(vocabulary) is about the most a model that knows nothing else can gain.
(Olsson et al. 2022, in-context learning score, on sequences where the repeat is known; Howe 2026 calls it copy_adv.)

The first token of the repetition (target p) is left out on both sides: no token before it tells that a repetition
starts. Targets 1 … p−1 are the first copy, targets p+1 … T−1 the repetition.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.training.model import attention_kinds, next_token_losses
from mech_pipeline.training.seeds import fixed_torch_generator


def copy_advantage(model: nn.Module, sequences: Sequences) -> Float[Tensor, ""]:
    """Mean over sequences of (mean loss on the first copy − mean loss on the repetition), nats."""
    losses = next_token_losses(model, sequences.tokens)
    target = torch.arange(1, sequences.tokens.shape[1], device=sequences.tokens.device)
    first = target[None, :] < sequences.period[:, None]
    repeat = target[None, :] > sequences.period[:, None]
    mean_first = (losses * first).sum(1) / first.sum(1)
    mean_repeat = (losses * repeat).sum(1) / repeat.sum(1)
    return (mean_first - mean_repeat).mean()


def without_repetition(sequences: Sequences) -> Int[Tensor, "example token"]:
    """The same tokens with every copy of the repeated part in an order of its own: nothing is left to copy.

    What tokens there are, and how often, stays. The order is drawn once and for all; a part of one token stays as it is.
    """
    example, length = sequences.tokens.shape
    key = torch.rand(example, length, generator=fixed_torch_generator("shuffled copies"))
    copy = torch.arange(length) // sequences.period[:, None].cpu()
    order = (copy + key).argsort(1).to(sequences.tokens.device)
    return sequences.tokens.gather(1, order)


def previous_token_attention(model: nn.Module, sequences: Sequences) -> Float[Tensor, ""]:
    """Mean attention from each token to the one before it, of the head where it is largest."""
    patterns = attention_patterns(model, sequences)
    return torch.stack([previous_token_score(pattern).max() for pattern in patterns]).max()


def previous_token_score(pattern: Float[Tensor, "example head query key"]) -> Float[Tensor, " head"]:
    """Mean attention i → i − 1 over all i ≥ 1. 1: a perfect previous-token head; uniform attention: mean of 1/(i+1)."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(0, 2))


def attention_patterns(model: nn.Module, sequences: Sequences) -> list[Float[Tensor, "example head query key"]]:
    """The attention pattern of every layer, differentiable with respect to the parameters.

    Raises:
        TypeError: the model has no attention of a known kind, whose second result is its pattern.
    """
    patterns: list[Tensor] = []
    kinds = attention_kinds()
    known = [module for module in model.modules() if isinstance(module, kinds)]
    if not known:
        raise TypeError(f"{type(model).__name__} has no attention of a known kind")
    hooks = [module.register_forward_hook(lambda _m, _i, out: patterns.append(out[1])) for module in known]
    try:
        model(sequences.tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return patterns
