"""What the model predicts: loss and logit difference. Cost: one forward of the probe."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.readouts.inputs import Contrast, Marked
from mech_pipeline.training.model import next_token_losses


def loss(model: nn.Module, data: Marked) -> Float[Tensor, ""]:
    """Mean of −log p(token | tokens before it) over the marked tokens, nats.

    0: each is predicted with certainty; log(vocabulary): the model ignores its input. Smaller is better: `sign=-1`.

    Raises:
        MechError: a first token is marked, which nothing predicts.
    """
    if bool(data.chosen[:, 0].any()):
        raise MechError("the first token of a sequence is marked, but no token before it predicts it", "leave it out")
    chosen = data.chosen[:, 1:]
    return (next_token_losses(model, data.tokens) * chosen).sum() / chosen.sum()


def logit_difference(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """Mean over sequences of logit(correct) − logit(wrong) at the position, nats.

    It is the log of the odds of the one against the other. 0: the model has no preference.
    Source: Wang et al. 2022, §3, logit difference.
    """
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    logits = model(data.tokens)[example, data.position]
    return (logits[example, data.correct] - logits[example, data.wrong]).mean()


def top_share(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """Share of sequences whose correct token has the largest logit of all. A step function: it has no gradient."""
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    logits = model(data.tokens)[example, data.position]
    return (logits.argmax(-1) == data.correct).float().mean()
