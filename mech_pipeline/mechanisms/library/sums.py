"""Sums of numbers of two digits: whether the carry is known, and the digit of tens at all."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import logit_difference, top_share
from mech_pipeline.mechanisms.tasks.sums import carries, other_carry

MECHANISMS: dict[str, Mechanism[Contrast]] = {
    "carry_logit_difference": Mechanism(
        readout=logit_difference,
        data=carries,
        unit="nats",
        meaning="logit of the right digit of tens minus logit of the one that the other carry would make",
        corrupted=other_carry,
    ),
    "carry_accuracy": Mechanism(
        readout=top_share,
        data=carries,
        unit="share of sums",
        meaning="how often the digit of tens is right, half of them after a carry; no gradient, so no attribution",
    ),
}
