"""What is asked of a stage of checkpoints or targets: of a batch the cells that its run plans, and what becomes of the others.

The product of runs and steps has squares that no plan has: a run keeps no state there, or its experiment does not ask for
it. `mech run` and the sensor `work` pass over them. A person who asks for one, by a backfill of all that is missing, is told
that there is nothing to make: the partition is reported as skipped, because Dagster calls a backfill failed that leaves one
without a word. What is planned and cannot be made yet is refused by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.tags import LAUNCHER_TAG, WORK_TAG
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.stage import Output, Scope, Stage, View

SKIPPED = "skipped"
"""Data version of a partition in which there is nothing to make."""


def by_a_person(context: dg.AssetExecutionContext) -> bool:
    """Whether somebody chose these partitions; `mech run` and `work` name ranges, and mean what is planned in them."""
    return not {LAUNCHER_TAG, WORK_TAG} & {*context.run.tags}


def skip(context: dg.AssetExecutionContext, output: Output, run: str, steps: Sequence[int], why: str) -> None:
    """Reports partitions in which there is nothing to make."""
    keys = [partition(run, step) for step in steps]
    events = PartitionEvents(context, output.name, output.version(), {}, keys)
    for key in keys:
        events.report(key, SKIPPED, {"skipped": why})
    if steps:
        context.log.info(f"{output.name} of {run}, {len(steps)} steps skipped: {why}")


@dataclass(frozen=True)
class Asked:
    """What a batch asks of a stage.

    Attributes:
        steps: to be made, rising.
        outputs: to be made of them.
        skipped: of each chosen output, the steps at which the run does not plan it.
        refused: steps that the run plans and that cannot be made yet.
    """

    steps: list[int]
    outputs: list[Output]
    skipped: dict[str, list[int]]
    refused: list[int]


def asked_of(context: dg.AssetExecutionContext, stage: Stage, view: View, steps: Sequence[int]) -> Asked:
    """What there is to do for the chosen steps and outputs.

    Raises:
        MechError: the run's checkpoints do not bring what the stage needs.
    """
    chosen = [output for output in stage.outputs if dg.AssetKey(output.name) in context.selected_asset_keys]
    if not stage.is_asked(view):
        return Asked([], [], {output.name: list(steps) for output in chosen}, [])
    if (lack := stage.lacks(view)) is not None:
        raise MechError(f"{stage.name} {lack}", "train the run here, or leave the stage out")
    if stage.scope == Scope.TARGET and len(steps) == 1:
        return Asked(list(steps), chosen, {}, [])  # a single target is meant as it is
    wanted = stage.wanted(view)
    made, planned = {*steps_of(wanted)}, _planned(stage, view)
    of_table = {name: {*steps_of(cell for cell in wanted if cell.table == name)} for name in stage.tables}
    single = len(stage.outputs) == 1 or stage.scope == Scope.TARGET
    makes = {output.name: made if single else of_table[str(output.table)] for output in chosen}
    refused = sorted(({*steps} & planned) - made)
    return Asked(
        steps=sorted({*steps} & made),
        outputs=[output for output in chosen if makes[output.name]],
        skipped={name: sorted({*steps} - steps_made - {*refused}) for name, steps_made in makes.items()},
        refused=refused,
    )


def _planned(stage: Stage, view: View) -> set[int]:
    return {*(kept_steps(view.store, view.spec) if stage.grid is None else stage.grid(view.spec))}


def refuse(stage: Stage, run: str, steps: Sequence[int]) -> MechError:
    """Why planned steps were not made."""
    named = ", ".join(map(str, steps[:3])) + (f" and {len(steps) - 3} more" if len(steps) > 3 else "")
    return MechError(
        f"{stage.name} of {run} at step {named}: what it reads is not there yet",
        "launch the experiment, or wait until the run is trained",
    )
