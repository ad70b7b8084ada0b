"""The stage `influence`: what would happen."""

from collections.abc import Sequence

from mech_pipeline.pipeline.cells import pending_cells
from mech_pipeline.pipeline.influence.wanted import CODE_VERSION, planned_targets, target_steps, wanted
from mech_pipeline.pipeline.needs import REPLAY
from mech_pipeline.pipeline.stage import TOP, Cells, Output, Scope, Stage, Told, View, always

_EXAMPLE = "kind, text, document, line"
_GROUPED = f"group by step, mechanism, {_EXAMPLE}"


def _influenced(view: View) -> Cells:
    return wanted(view.found, target_steps(view.found))


def _compute_influence(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.influence.influence import compute_influence

    count = compute_influence(view.opened, steps, told.emit)
    told.on_steps(list(steps))
    return count


INFLUENCE = Stage(
    "influence",
    "What would happen without an example.",
    Scope.TARGET,
    (
        Output(
            "influence",
            "What would happen: effect on a mechanism at this step of weighting each earlier example. A "
            "prediction, for small changes only, where `reliability` allows. About three training steps an update and "
            "mechanism.",
            ("influence", "influence_tokens", "sweeps", "sketches"),
            always(CODE_VERSION),
            inputs=("checkpoint",),
            group="attribution",
            rows="select step, mechanism, sum(value::double) as per_unit_weight, bool_and(reliable) as reliable, "
            f"{_EXAMPLE} from influence join examples using (example_id) where run = $run and step in $$ and "
            f"method = 'adjoint' {_GROUPED} "
            f"{TOP.format(by='per_unit_weight')} order by step, mechanism, abs(per_unit_weight) desc",
        ),
        Output(
            "reliability",
            "When that influence may be trusted: metasmoothness (two trainings more), adjoint growth, horizon.",
            ("reliability",),
            always(CODE_VERSION),
            inputs=("checkpoint",),
            group="attribution",
            rows="select step, mechanism, method, metric, value from reliability where run = $run and step in $$ "
            "and update_step = -1 order by all",
        ),
    ),
    asked=lambda spec: bool(spec.influence.mechanisms),
    grid=planned_targets,
    wanted=_influenced,
    pending=lambda view, cells: pending_cells(view.store, cells, also=["reliability"]),
    compute=_compute_influence,
    reads=("training", "formation"),
    needs=REPLAY,
    priority=80,
    pool="gpu_analysis",
)
