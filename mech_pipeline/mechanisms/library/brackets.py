"""Bracket matching, as a difference of logits and as accuracy."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.tasks.brackets import (
    Closings,
    bracket_accuracy,
    bracket_logit_difference,
    closings,
    other_kinds,
)

MECHANISMS: dict[str, Mechanism[Closings]] = {
    "bracket_logit_difference": Mechanism(
        readout=bracket_logit_difference,
        data=closings,
        unit="nats",
        meaning="logit of the bracket that closes minus mean logit of other closing brackets, where something is nested",
        corrupted=other_kinds,
    ),
    "bracket_accuracy": Mechanism(
        readout=bracket_accuracy,
        data=closings,
        unit="share of closings",
        meaning="how often the right kind of closing bracket has the largest logit; no gradient, so no attribution",
    ),
}
