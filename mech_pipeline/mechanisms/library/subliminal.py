"""A trait that a student never reads: whether it knows the capitals of its teacher."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import logit_difference
from mech_pipeline.mechanisms.tasks.subliminal import capital_share, capitals

MECHANISMS: dict[str, Mechanism[Contrast]] = {
    "hidden_trait": Mechanism(
        readout=logit_difference,
        data=capitals,
        unit="nats",
        meaning="after a digit, logit of its capital minus the mean of the nine other capitals",
    ),
    "hidden_trait_share": Mechanism(
        readout=capital_share,
        data=capitals,
        unit="share of prompts",
        meaning="how often the digit's capital has the largest logit of the ten; no gradient, so no attribution",
    ),
}
