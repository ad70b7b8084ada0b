"""The stage `comparison`: what came of the arms of an experiment, held against each other."""

from collections.abc import Sequence

from mech_pipeline.pipeline.comparison import wanted
from mech_pipeline.pipeline.stage import Output, Scope, Stage, Told, View, always


def _compare(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.comparison.comparison import compute_comparisons

    return compute_comparisons(view, told.emit)


COMPARISON = Stage(
    "comparison",
    "Compares the arms of an experiment that chooses examples or holds parts of the model.",
    Scope.EXPERIMENT,
    (
        Output(
            "comparisons",
            "When each arm formed, its shift against what it chose by and what was matched to it, paired by seed, after Holm; "
            "dose and response; predicted and measured effects. Seconds.",
            ("arms", "comparisons", "predictions", "causal_measures"),
            always(wanted.CODE_VERSION),
            inputs=("formation", "choices", "influence", "mechanism_values"),
            group="causes",
            shows="comparisons",
            rows="select arm, reference, mechanism, pairs, shift, lower, upper, p_holm from comparisons "
            "where experiment = $run order by all",
        ),
    ),
    asked=lambda spec: spec.choice is not None or bool(spec.interventions),
    wanted=wanted.wanted,
    compute=_compare,
    reads=("spec",),
    after=("choice", "analysis", "formation", "influence"),
    priority=5,
)
