"""How far a run is, in words that people read at a glance: "62 of 62 checkpoints, analysed, ledger 61 of 61".

Counted is what is current in the store, against what the run's plan asks for as far as it is known now.
"""

from collections.abc import Iterator, Sequence

from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.checkpoints import training_fingerprint
from mech_pipeline.pipeline.holds import hold_of
from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.stage import Scope, Stage, View
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def standing(store: Store, spec: RunSpec) -> str:
    """How far a run is: its checkpoints, then each stage that counts by checkpoints or targets. Tens of milliseconds."""
    return standings(store, [spec])[spec.run]


def standings(store: Store, specs: Sequence[RunSpec]) -> dict[str, str]:
    """How far some runs are, in one look at the store."""
    with one_look([spec.run for spec in specs]):
        return {spec.run: _standing(store, spec) for spec in specs}


def _standing(store: Store, spec: RunSpec) -> str:
    if training_fingerprint(store, spec) is None:
        return f"0 of {len(spec.checkpoint_steps())} checkpoints"
    view = View(store, (spec,))
    planned = view.found.planned
    there = len({*planned} & {*view.found.checkpoints})
    hold = hold_of(store, spec)
    held = [] if hold is None else [hold.words]
    return ", ".join([f"{there} of {len(planned)} checkpoints", *held, *_stages(view)])


def _stages(view: View) -> Iterator[str]:
    trained = {*view.found.planned} <= {*view.found.checkpoints}
    for stage in STAGES:
        if stage.scope not in (Scope.CHECKPOINT, Scope.TARGET) or not stage.is_asked(view):
            continue
        if not (trained or stage.live):
            continue  # what it is made from is known only once the run is trained
        if stage.lacks(view) is not None:
            yield f"no {stage.name} (its checkpoints do not allow it)"
            continue
        made, planned = _count(view, stage)
        if stage.name == "analysis":  # of every checkpoint that is named before
            yield "analysed" if made == planned else f"{made} of {planned} analysed"
        elif planned:
            yield f"{stage.name} {made} of {planned}"


def _count(view: View, stage: Stage) -> tuple[int, int]:
    """Steps at which all that a stage is asked for is current, and steps at which it is asked."""
    wanted, late = steps_of(stage.wanted(view)), steps_of(stage.waiting(view))
    grid = view.found.planned if stage.grid is None else stage.grid(view.spec)
    planned = {*grid} & {*view.found.planned} | {*wanted}
    return len({*wanted} - {*late}), len(planned)
