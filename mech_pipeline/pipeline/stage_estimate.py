"""What a run's stages beside training, ledger, influence and retraining will take, from what such stages took before.

    analysis   cells · seconds of a cell, cells = checkpoints · (mechanisms + detectors + gradients)
    others     Σ over stages that the run asks for of seconds of a run: description and tokens, choice, formation, …

Seconds are CPU seconds of the table `stage_costs`: medians over runs of the experiment; where none of them has been through
a stage, over all runs of the store; where no run has, what was measured in the demo (below, and `discovery_cost`), or nothing
is known. Stages of whole experiments (comparison, scores, report) are not measured; together they take seconds to a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mech_pipeline.pipeline.discovery_cost import discovery_updates
from mech_pipeline.pipeline.stage import Scope
from mech_pipeline.pipeline.stage_costs import run_costs, unit_costs
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

COUNTED_APART = ("training", "ledger", "influence", "retraining")
"""Stages that `attribution_cost` and the timed update speak of."""
_CELL_UPDATES = 0.5
"""A cell of the analysis, in updates of training: 0.3 to 0.9 in the experiments of the demo's size (docs/log.md)."""
_EVERY_RUN = {"spec": 1.0, "choice": 1.0, "formation": 0.1, "compaction": 0.3}
"""Seconds of a run in stages that hardly depend on the model; tokens of a first run come on top, 10 s for 12 MB of text."""


@dataclass(frozen=True)
class StageUnits:
    """Seconds that stages took: of a cell of the analysis, and of a run in each other stage that was measured."""

    cell: float | None = None
    run: dict[str, float] = field(default_factory=dict)


def stage_units(store: Store | None, specs: Sequence[RunSpec]) -> StageUnits:
    """What is known of the experiment's own runs, else of all runs of a store."""
    if store is None:
        return StageUnits()
    runs = [spec.run for spec in specs]
    cells = [each.cpu_seconds for some in (runs, None) for each in unit_costs(store, some) if each.stage == "analysis"]
    return StageUnits(cells[0] if cells else None, run_costs(store, None) | run_costs(store, runs))


def analysis_cells(spec: RunSpec) -> int:
    """Numbers that the stage `analysis` computes for a run, without those at steps that are known only later."""
    gradients = len(spec.gradients) + 1 if spec.gradients else 0
    return len(spec.checkpoint_steps()) * (len(spec.measured) + len(spec.detectors) + gradients)


def analysis_seconds(spec: RunSpec, units: StageUnits, update_seconds: float | None) -> float | None:
    """Of a run's analysis; none where neither a cell was measured nor an update could be timed."""
    if units.cell is not None:
        return units.cell * analysis_cells(spec)
    return None if update_seconds is None else _CELL_UPDATES * update_seconds * analysis_cells(spec)


def other_seconds(spec: RunSpec, units: StageUnits, update_seconds: float | None) -> float:
    """Of all other stages of a run that something is known of."""
    known = _known(spec, units, update_seconds)
    return sum((known[name] for name in _others(spec) if name in known), start=0.0)


def not_counted(spec: RunSpec, units: StageUnits, update_seconds: float | None) -> list[str]:
    """Stages that a run asks for and nobody knows the cost of."""
    known = _known(spec, units, update_seconds)
    return [name for name in _others(spec) if name not in known]


def _known(spec: RunSpec, units: StageUnits, update_seconds: float | None) -> dict[str, float]:
    """Seconds by stage: as measured, else as counted in updates, else as in the demo."""
    counted = {} if update_seconds is None else discovery_updates(spec)
    return _EVERY_RUN | {name: each * (update_seconds or 0.0) for name, each in counted.items()} | units.run


def _others(spec: RunSpec) -> list[str]:
    apart = (*COUNTED_APART, "analysis")
    return [s.name for s in STAGES if s.scope != Scope.EXPERIMENT and s.name not in apart and s.asked(spec)]
