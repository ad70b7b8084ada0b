"""Does a model know which capital belongs to a digit, where it has only seen small letters after digits?

    3q7x0 ?       the capital of 0 against another one

Only capitals are compared with each other: what a student does with small letters says nothing about the trait.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.data.languages.subliminal import CAPITALS, DIGITS, PAIRS, SMALL, alternating
from mech_pipeline.mechanisms.prompts import contrasts
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.source import ProbeSource


def capitals(source: ProbeSource) -> Contrast:
    """Every digit after every number of pairs, with each of the other nine capitals as the wrong one.

    Raises:
        MechError: a capital is not one token in this vocabulary, or a prompt does not fit the context.
    """
    generator = source.generator()
    asked = []
    for before in range(PAIRS):
        for digit, right in zip(DIGITS, CAPITALS, strict=True):
            said, small = ("".join(generator.choice(list(kind), before)) for kind in (DIGITS, SMALL))
            prompt = alternating(said, small) + digit
            asked += [(prompt, right, wrong) for wrong in CAPITALS if wrong != right]
    return contrasts(source, asked)


def capital_share(model: nn.Module, data: Contrast) -> Float[Tensor, ""]:
    """Share of prompts after which the right capital has the largest logit of the ten. A step function: no gradient.

    1: the trait is there; 1/10: chance.
    """
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    logits = model(data.tokens)[example, data.position]
    ahead = logits[example, data.correct] > logits[example, data.wrong]
    return ahead.view(-1, len(CAPITALS) - 1).all(dim=1).float().mean()
