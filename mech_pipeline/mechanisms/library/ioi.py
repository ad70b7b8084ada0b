"""Indirect-object identification, as a log of odds and as accuracy."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.predictions import logit_difference
from mech_pipeline.mechanisms.tasks.ioi import IoiPrompts, abc_prompts, accuracy, ioi_prompts

MECHANISMS: dict[str, Mechanism[IoiPrompts]] = {
    "ioi_logit_difference": Mechanism(
        readout=logit_difference,
        data=ioi_prompts,
        unit="nats",
        meaning="logit of the indirect object minus logit of the subject, after the whole prompt",
        corrupted=abc_prompts,
    ),
    "ioi_accuracy": Mechanism(
        readout=accuracy,
        data=ioi_prompts,
        unit="share of prompts",
        meaning="how often the indirect object is the most likely next token; no gradient, so no attribution",
    ),
}
