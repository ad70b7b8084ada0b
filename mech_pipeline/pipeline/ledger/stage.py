"""The stage `ledger`: what happened."""

from collections.abc import Sequence

from mech_pipeline.pipeline.cells import pending_cells
from mech_pipeline.pipeline.ledger.wanted import CODE_VERSION, pending, wanted
from mech_pipeline.pipeline.needs import REPLAY
from mech_pipeline.pipeline.stage import TOP, Output, Scope, Stage, Told, View, always
from mech_pipeline.progress import Progress

_EXAMPLE = "kind, text, document, line"
_GROUPED = f"group by step, mechanism, {_EXAMPLE}"


def _compute_ledger(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.ledger.ledger import compute_ledger

    run = view.opened
    late = {cell.step for cell in pending(run, steps)}
    report = Progress(told.emit, f"ledger {run.spec.run}", len(late), "windows")
    return compute_ledger(run, steps, told.on_steps, report, told.on_rows)


LEDGER = Stage(
    "ledger",
    "What happened between checkpoints, by example.",
    Scope.CHECKPOINT,
    (
        Output(
            "ledger",
            "What happened since the previous checkpoint, per example and component. Exact; not a prediction. "
            "0.1 s an update.",
            ("ledger", "ledger_balance", "ledger_tokens"),
            always(CODE_VERSION),
            inputs=("checkpoint",),
            group="attribution",
            rows=f"select step, mechanism, sum(value::double + value_later::double) as moved, {_EXAMPLE} "
            f"from ledger join examples using (example_id) where run = $run and step in $$ {_GROUPED} "
            f"{TOP.format(by='moved')} order by step, mechanism, abs(moved) desc",
        ),
    ),
    asked=lambda spec: bool(spec.accounts),
    grid=lambda spec: spec.checkpoints.possible(spec.training.steps)[1:],
    wanted=lambda view: wanted(view.found, view.found.planned),
    pending=lambda view, cells: pending_cells(view.store, cells, also=["ledger_balance"]),
    compute=_compute_ledger,
    reads=("training",),
    needs=REPLAY,
    priority=40,
    pool="gpu_analysis",
)
