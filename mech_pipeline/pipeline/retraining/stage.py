"""The stage `retraining`: whether influence predicts what happens."""

from collections.abc import Sequence

from mech_pipeline.attribution.retraining.removals import asked_removals
from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.influence.wanted import planned_targets
from mech_pipeline.pipeline.needs import REPLAY
from mech_pipeline.pipeline.retraining import wanted
from mech_pipeline.pipeline.stage import TOP, Cells, Output, Scope, Stage, Told, View, always


def _retrained(view: View) -> Cells:
    step = wanted.retraining_step(view.found)
    return {} if step is None else wanted.wanted(view.found, step) | wanted.wanted_lds(view.found, step)


def _not_retrained(view: View, cells: Cells) -> list[Cell]:
    step = wanted.retraining_step(view.found)
    return [] if step is None else wanted.pending(view.found, step) + wanted.pending_lds(view.found, step)


def _retrain(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.retraining import lds, retraining

    count = 0
    for step in steps:
        count += retraining.compute_retrainings(view.opened, step, told.emit)
        count += lds.compute_lds(view.opened, step)
        told.on_steps([step])
    return count


RETRAINING = Stage(
    "retraining",
    "Trains without examples: predictions against what happens.",
    Scope.TARGET,
    (
        Output(
            "retrainings",
            "What really happens without some examples: the run trained again up to this step, many times. "
            "Half the time of a training each on a core; a killed one goes on with what is missing.",
            ("retrainings", "removals"),
            always(wanted.CODE_VERSION),
            inputs=("checkpoint", "influence"),
            group="attribution",
            rows="select step, removal, mechanism, n_removed, change from retrainings where run = $run and step in $$ "
            f"and change is not null {TOP.format(by='change')} order by step, mechanism, abs(change) desc",
        ),
        Output(
            "lds",
            "How good influence predicts those removals: rank correlation with its interval (the linear "
            "datamodeling score), calibration, and what removing the top examples did. A dozen rows.",
            ("lds",),
            always(wanted.LDS_VERSION),
            inputs=("retrainings", "influence"),
            group="attribution",
            rows="select step, mechanism, method, fraction, metric, value, lower, upper from lds where run = $run and "
            "step in $$ order by all",
        ),
    ),
    asked=lambda spec: bool(asked_removals(spec.influence)),
    grid=lambda spec: planned_targets(spec)[-1:],
    wanted=_retrained,
    pending=_not_retrained,
    compute=_retrain,
    reads=("influence",),
    needs=REPLAY,
    priority=85,
    pool="gpu_analysis",
)
