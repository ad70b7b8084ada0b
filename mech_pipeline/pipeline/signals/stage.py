"""The stage `signals`: what every checkpoint says without naming a mechanism."""

from collections.abc import Sequence

from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.signals import wanted
from mech_pipeline.pipeline.stage import Output, Scope, Stage, Told, View, always


def _measure(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.signals.values import measure

    cells = wanted.wanted_values(view.opened, steps)
    late = [cell for cell in SIGNALS.waiting(view) if cell in cells]
    return measure(view.opened, cells, late, told.on_steps)


SIGNALS = Stage(
    "signals",
    "Measures signals that know no mechanism.",
    Scope.CHECKPOINT,
    (
        Output(
            "signal_values",
            "Every signal at a checkpoint: a row each, some 0.1 s for a small model.",
            ("signal_values",),
            always(wanted.CODE_VERSION),
            inputs=("checkpoint",),
            group="precursors",
            previewed=False,
            rows="select step, signal, value from signal_values where run = $run and step in $$ order by all",
        ),
    ),
    asked=lambda spec: bool(spec.signals),
    grid=lambda spec: spec.checkpoint_steps() if spec.signals else (),
    wanted=lambda view: wanted.wanted_values(view.found, view.found.planned),
    compute=_measure,
    reads=("training",),
    needs=frozenset({Need.WEIGHTS, Need.POOL}),
    live=True,
    priority=50,
    pool="gpu_analysis",
)
