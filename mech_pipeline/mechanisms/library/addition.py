"""Addition modulo 23: whether the rule is there, and whether the pairs of training are."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import logit_difference, top_share
from mech_pipeline.mechanisms.tasks.addition import seen_sums, unseen_sums

MECHANISMS: dict[str, Mechanism[Contrast]] = {
    "unseen_sums": Mechanism(
        readout=top_share,
        data=unseen_sums,
        unit="share of pairs",
        meaning="how often the sum of a pair that is never trained on is right; no gradient, so no attribution",
    ),
    "unseen_sum_difference": Mechanism(
        readout=logit_difference,
        data=unseen_sums,
        unit="nats",
        meaning="logit of the right sum minus that of the next number, pairs that are never trained on",
    ),
    "seen_sums": Mechanism(
        readout=top_share,
        data=seen_sums,
        unit="share of pairs",
        meaning="how often the sum of a pair that is trained on is right; no gradient, so no attribution",
    ),
}
