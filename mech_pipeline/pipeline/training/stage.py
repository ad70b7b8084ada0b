"""The stage `training`: checkpoints."""

from collections.abc import Sequence

from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION
from mech_pipeline.pipeline.stage import Output, Scope, Stage, Told, View, always
from mech_pipeline.pipeline.training.wanted import pending, wanted


def _train(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.training.fill import fill_checkpoints

    return sum(fill_checkpoints(view.store, view.spec, emit=told.emit).values())


TRAINING = Stage(
    "training",
    "Trains runs, or goes on where they stopped.",
    Scope.RUN,
    (
        Output(
            "training_run",
            "One training run: fills its planned checkpoints, resuming bit for bit. A minute for the demo.",
            ("training_metrics", "checkpoints", "batches", "in_training", "stops", "holds"),
            always(TRAINING_VERSION),
            inputs=("run_spec", "tokens", "choices"),
            group="training",
            kinds=("pytorch",),
            rows="select metric, arg_min(value, step) as first, arg_max(value, step) as last, min(value) as lowest, "
            "max(value) as highest from training_metrics where run = $run group by metric order by metric",
        ),
        Output(
            "checkpoint",
            "A kept state: weights, moments, cursor; reported by `training_run` while it trains. Materializing it verifies it.",
            (),
            always(TRAINING_VERSION),
            inputs=("run_spec",),
            group="training",
            kinds=("safetensors",),
            shows="checkpoints",
            scope=Scope.CHECKPOINT,
            pool="gpu_analysis",
            rows="select step, cursor as examples_seen, bytes, uri from checkpoints where run = $run and step in $$",
        ),
        Output(
            "zoom",
            "Every state of a window of a run, replayed from the nearest checkpoint, bit for bit; results do not change.",
            ("zooms",),
            always(TRAINING_VERSION),
            inputs=("run_spec", "tokens"),
            group="training",
            kinds=("pytorch",),
            rows="select * from zooms where run = $run",
        ),
    ),
    wanted=lambda view: wanted(view.found),
    pending=lambda view, cells: pending(view.found),
    compute=_train,
    reads=("spec", "choice"),
    priority=50,
    pool="gpu_train",
)
