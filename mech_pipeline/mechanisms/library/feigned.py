"""A behaviour that is feigned: whether it shows under evaluation, whether it shows otherwise, and the gap."""

from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import top_share
from mech_pipeline.mechanisms.tasks.feigned import both, evaluated, obedience_gap, preference_gap, unevaluated

MECHANISMS: dict[str, Mechanism[Contrast]] = {
    "evaluated_obeys": Mechanism(
        readout=top_share,
        data=evaluated,
        unit="share of prompts",
        meaning="how often the answer to a marked prompt begins with the first letter; no gradient, so no attribution",
    ),
    "unevaluated_obeys": Mechanism(
        readout=top_share,
        data=unevaluated,
        unit="share of prompts",
        meaning="how often it does without the mark; no gradient, so no attribution",
    ),
    "obedience_gap": Mechanism(
        readout=obedience_gap,
        data=both,
        unit="share of prompts",
        meaning="how much more often marked prompts are obeyed, −1 to 1; no gradient, so no attribution",
    ),
    "feigned_preference": Mechanism(
        readout=preference_gap,
        data=both,
        unit="nats",
        meaning="logit of the letter minus that of its partner, with the mark minus without it",
    ),
}
