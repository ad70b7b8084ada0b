"""Group `analysis`: what is to be seen in each checkpoint, and which edges of the model carry a mechanism."""

from mech_pipeline.assets.factory import step_asset
from mech_pipeline.pipeline.stages import stage_of

checkpoint_analysis = step_asset(
    stage_of("analysis"),
    curves={
        "mechanism_values": "select step, mechanism, value from mechanism_values where run = ?",
        "head_scores": "select step, 'best ' || detector, max(value) from head_scores where run = ? group by all",
        "gradients": "select step, 'norm of ' || gradient, sqrt(sum(value * value)) from gradients where run = ? group by all",
    },
)
"""Loads each checkpoint once and computes what is asked for and not current."""

circuits = step_asset(
    stage_of("circuits"),
    curves={
        "circuits": "select step, 'edges that carry 80 % of ' || mechanism, count(*) filter (in_circuit) from circuits "
        "where run = ? group by step, mechanism"
    },
)
