"""Labelling brackets: whether it is learned, and which of the two rules that fit is the one that was."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import logit_difference
from mech_pipeline.mechanisms.tasks.parentheses import disagreeing, disagreeing_inside, label_share, labelled

MECHANISMS: dict[str, Mechanism[Contrast]] = {
    "parentheses_logit_difference": Mechanism(
        readout=logit_difference,
        data=labelled,
        unit="nats",
        meaning="logit of the right label minus that of the other, sequences on which both rules agree",
    ),
    "parentheses_accuracy": Mechanism(
        readout=label_share,
        data=labelled,
        unit="share of sequences",
        meaning="how often the right label has the larger logit; no gradient, so no attribution",
    ),
    "nested_rule_preference": Mechanism(
        readout=logit_difference,
        data=disagreeing,
        unit="nats",
        meaning="logit of no minus yes where counts are equal but not nested; below 0: the equal-count rule",
    ),
    "nested_rule_preference_inside": Mechanism(
        readout=logit_difference,
        data=disagreeing_inside,
        unit="nats",
        meaning="the same where the first bracket opens and the last closes, so that neither end tells",
    ),
    "nested_rule_share": Mechanism(
        readout=label_share,
        data=disagreeing,
        unit="share of sequences",
        meaning="how often it says no where counts are equal but not nested; no gradient, so no attribution",
    ),
}
