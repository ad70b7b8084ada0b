"""Sums with a carry: which digit of tens follows, and which heads look at the digits that it is made of.

    add 7 1 + 6 3 = 3 → 5          units first: 17 + 36 = 53; the query is the units of the result
        ↑ ↑   ↑ ↑   ↑ query

The right digit of tens and the one that would be right if the units had carried otherwise differ by one: a model that adds tens
alone prefers neither over all prompts. As many prompts carry as do not. The numbers are below 50, so that tens never wrap around.
Source: the carry task of POLCA (2025).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.data.languages.sums import BEGIN
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.attention_edges import lost_without_edges
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.prompts import contrasts, prompts
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.training.bridge_type import TransformerBridge

PROMPTS = 96
_DIGITS = (1, 2, 4, 5)
"""Positions of the four digits that are added."""
_LENGTH = 8
Sum = tuple[int, int, int, int]
"""Units and tens of the one, units and tens of the other."""


def carries(source: ProbeSource) -> Contrast:
    """Prompts up to the units of the result, with the right digit of tens and that of the other carry.

    Raises:
        MechError: a digit is not one token in this vocabulary, or a prompt does not fit the context.
    """
    found = contrasts(source, [_text(one) for one in _drawn(source)])
    if found.tokens.shape[1] != _LENGTH:
        raise MechError("a digit is not one token in this vocabulary", "train the tokenizer on `generated: sums`")
    return found


CARRIES = ("sums", carries)
"""Name and maker of the detector's probe data."""


def other_carry(source: ProbeSource) -> Int[Tensor, "example token"]:
    """The prompts of `carries`, token by token, with other units, which carry where those do not: the answers are wrong."""
    return prompts(source, [_text(_with_other_carry(one))[0] for one in _drawn(source)]).tokens


def knockout(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """How much of the logit difference goes when a head may not look from the query at the digits that are added, nats."""
    data = probe.of(*CARRIES)
    example = torch.arange(len(data.tokens), device=data.tokens.device)
    digits = torch.tensor(_DIGITS, device=data.tokens.device).repeat(len(example))
    each = example.repeat_interleave(len(_DIGITS))

    def difference(logits: Tensor) -> Tensor:
        last = logits[example, data.position]
        return (last[example, data.correct] - last[example, data.wrong]).mean()

    return lost_without_edges(bridge, data.tokens, difference, (each, data.position[each], digits))


def _drawn(source: ProbeSource) -> list[Sum]:
    """Sums of numbers below 50 that carry and that do not, in turn."""
    generator, found = source.generator(), list[Sum]()
    while len(found) < PROMPTS:
        one, ten, other_one, other_ten = (int(digit) for digit in generator.integers(0, [10, 5, 10, 5]))
        if (one + other_one >= 10) == (len(found) % 2 == 0):
            found.append((one, ten, other_one, other_ten))
    return found


def _with_other_carry(made: Sum) -> Sum:
    """The units taken from nine: a carry becomes none, and the other way round but where they sum to nine.

    >>> _with_other_carry((7, 1, 6, 3)), _with_other_carry((4, 0, 5, 0)), _with_other_carry((9, 1, 0, 2))
    ((2, 1, 3, 3), (5, 0, 5, 0), (9, 1, 1, 2))
    """
    one, ten, other_one, other_ten = made
    if one + other_one == 9:
        return (one + 1, ten, other_one, other_ten) if one < 9 else (one, ten, other_one + 1, other_ten)
    return 9 - one, ten, 9 - other_one, other_ten


def _text(made: Sum) -> tuple[str, str, str]:
    """Prompt, right digit, digit of the other carry.

    >>> _text((7, 1, 6, 3))
    ('add 7 1 + 6 3 = 3', ' 5', ' 4')
    """
    one, ten, other_one, other_ten = made
    carry, units = divmod(one + other_one, 10)
    right, wrong = ten + other_ten + carry, ten + other_ten + 1 - carry
    return f"{BEGIN} {one} {ten} + {other_one} {other_ten} = {units}", f" {right}", f" {wrong}"
