"""A stage as somebody would add it: one module, with the description of its table."""

from collections.abc import Sequence

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.stage import Cells, Output, Scope, Stage, Told, View
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.tables.table import RUN, STEP, Column, Table

TABLE = Table(
    "toy", "length of the weights at every checkpoint", (RUN, STEP, Column("value", "float64", "‖θ‖")), ("run", "step")
)


def wanted(view: View) -> Cells:
    run = view.opened
    return {
        Cell("toy", run.spec.run, step): fingerprint("toy", "1", run.checkpoint_version(step)) for step in run.planned
    }


def compute(view: View, steps: Sequence[int], told: Told) -> int:
    late = {cell: made_from for cell, made_from in STAGE.waiting(view).items() if cell.step in steps}
    for cell, made_from in late.items():
        value = float(view.opened.weights(cell.step).norm())
        write(view.store, [Block(cell, {"value": [value]}, made_from)], "1")
    told.on_steps(sorted(steps))
    return len(late)


STAGE = Stage(
    "toy",
    "Measures how long the weights are.",
    Scope.CHECKPOINT,
    (Output("toy", "‖θ‖ at a checkpoint. One row.", ("toy",), lambda: "1", inputs=("checkpoint",)),),
    wanted=wanted,
    compute=compute,
    reads=("training",),
    needs=frozenset({Need.WEIGHTS}),
    priority=10,
)
