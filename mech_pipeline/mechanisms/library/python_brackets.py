"""Bracket matching in held-out Python source: as a difference of logits, as accuracy, and as what the opener is worth."""

from typing import Any

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.tasks.brackets import bracket_accuracy, bracket_logit_difference
from mech_pipeline.mechanisms.tasks.python_brackets import closings, exchanged_openers, opener_effect, with_exchanged

MECHANISMS: dict[str, Mechanism[Any]] = {
    "python_bracket_logit_difference": Mechanism(
        readout=bracket_logit_difference,
        data=closings,
        unit="nats",
        meaning="logit of the bracket that closes minus mean logit of the other kinds, held-out Python, kinds equally often",
        corrupted=exchanged_openers,
    ),
    "python_bracket_accuracy": Mechanism(
        readout=bracket_accuracy,
        data=closings,
        unit="share of closings",
        meaning="how often the right kind of three has the largest logit, held-out Python; no gradient, so no attribution",
    ),
    "python_bracket_opener_effect": Mechanism(
        readout=opener_effect,
        data=with_exchanged,
        unit="nats",
        meaning="what the bracket logit difference loses when the opener alone becomes one of another kind",
    ),
}
