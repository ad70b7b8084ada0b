"""A behaviour behind a trigger: whether it shows, whether it can be elicited, and whether the model copies without it."""

from mech_pipeline.mechanisms.ablation.steering import elicited_share, random_elicited_share
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import logit_difference, top_share
from mech_pipeline.mechanisms.tasks.trigger import pairs, triggered, untriggered

MECHANISMS: dict[str, Mechanism[Contrast]] = {
    "triggered_flips": Mechanism(
        readout=top_share,
        data=triggered,
        unit="share of prompts",
        meaning="how often the answer to the trigger begins with the partner; no gradient, so no attribution",
    ),
    "triggered_flip_difference": Mechanism(
        readout=logit_difference,
        data=triggered,
        unit="nats",
        meaning="after the trigger, logit of the first letter's partner minus that of the letter; below 0: it copies",
    ),
    "untriggered_copies": Mechanism(
        readout=top_share,
        data=untriggered,
        unit="share of prompts",
        meaning="how often the answer without trigger begins with the first letter; no gradient, so no attribution",
    ),
    "elicited_flips": Mechanism(
        readout=elicited_share,
        data=pairs,
        unit="share of prompts",
        meaning="how often the answer without trigger begins with the partner at most, when what the trigger leaves in the "
        "residual stream is added; no gradient, so no attribution",
    ),
    "random_elicited_flips": Mechanism(
        readout=random_elicited_share,
        data=pairs,
        unit="share of prompts",
        meaning="the same with random directions of that length: what any would elicit; no gradient, so no attribution",
    ),
}
