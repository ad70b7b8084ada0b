"""What an experiment still costs in all, from measured updates and counted ones, and whether its budget allows it.

    hours   Σ over runs that are not trained (updates to train + ledger + influence + retraining, in updates) · seconds an update
            + analysis and the run's other stages (`stage_estimate`)
    disk    checkpoints and gradient tensors of all runs

An arm that differs from another run from update t on is trained from that run's newest checkpoint ≤ t on: t is in the file
(`choose.window: [t, …]`, `intervene.from`), or follows from the step that a choice looks at, once the baseline has formed.
A run that may stop early (`training.stop`), or whose target is where it forms, takes that at most.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mech_pipeline.causal.doing import windows
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.attribution_cost import AttributionCost, attribution_cost, disk_bytes
from mech_pipeline.pipeline.choice.wanted import target_of
from mech_pipeline.pipeline.cost import Cost, costs
from mech_pipeline.pipeline.stage_estimate import (
    StageUnits,
    analysis_seconds,
    not_counted,
    other_seconds,
    stage_units,
)
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.spec.budget import Budget
from mech_pipeline.spec.choice import Recipe
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


@dataclass(frozen=True)
class RunEstimate:
    """Of one run, if nothing of it were there.

    Attributes:
        taken: updates that it takes over from another run of the experiment.
        seconds: of training, ledger, influence, retraining, and analysis with all other stages; none where an update could
            not be timed.
        disk_bytes: of checkpoints and gradient tensors.
        at_most: what makes these numbers upper bounds, in words.
        not_counted: stages that are asked for and of which nothing is known.
    """

    cost: Cost
    taken: int
    seconds: tuple[float | None, ...]
    disk_bytes: int
    at_most: tuple[str, ...] = ()
    not_counted: tuple[str, ...] = ()


def estimates(specs: tuple[RunSpec, ...], store: Store | None = None) -> list[RunEstimate]:
    """Of each run; some updates of each shape of model are timed.

    Args:
        store: what was measured there is used; none: there is nothing yet.
    """
    trunks = {spec.trunk_slice() for spec in specs if not (spec.treatments or spec.interventions)}
    units = stage_units(store, specs)
    return [_estimate(spec, cost, trunks, units, store) for spec, cost in zip(specs, costs(specs), strict=True)]


def _estimate(
    spec: RunSpec, cost: Cost, trunks: Collection[str], units: StageUnits, store: Store | None
) -> RunEstimate:
    asked, unit = attribution_cost(spec), None if cost.seconds is None else cost.seconds / cost.updates
    taken = taken_updates(spec, store) if spec.trunk_slice() in trunks else 0
    updates = (cost.updates - taken, asked.ledger, asked.influence, asked.retraining)
    seconds = tuple(None if unit is None else unit * each for each in updates)
    analysis = analysis_seconds(spec, units, unit)
    beside = None if analysis is None else analysis + other_seconds(spec, units, unit)
    limits = _at_most(spec, asked)
    unknown = tuple(not_counted(spec, units, unit))
    return RunEstimate(cost, taken, (*seconds, beside), disk_bytes(spec, cost), limits, unknown)


def _at_most(spec: RunSpec, asked: AttributionCost) -> tuple[str, ...]:
    """Why a run may take less than is said."""
    early = ["runs may stop early (training.stop)"] if spec.training.stop is not None else []
    target = spec.influence.at == "formation" and asked.influence
    return (*early, *(["influence aims at where a run forms"] if target else []))


def taken_updates(spec: RunSpec, store: Store | None = None) -> int:
    """Updates that a run need not train where another run has trained them, as far as is known now."""
    if spec.data.weights is not None or spec.in_training.mechanisms:
        return 0
    begins = [each.begin for each in spec.interventions]
    if spec.choice is not None:
        begins.append(_treated_from(spec.choice, spec, store))
    return max((step for step in spec.checkpoint_steps() if begins and step <= min(begins)), default=0)


def _treated_from(recipe: Recipe, chooser: RunSpec, store: Store | None) -> int:
    """The first update at which a choice changes something; 0 where only a formation decides that is not known yet."""
    target = recipe.at if isinstance(recipe.at, int) else None
    if target is None and store is not None:
        found = [target_of(store, recipe, run, chooser) for run in recipe.runs]
        target = min((step for step in found if step is not None), default=None)
    if target is None and not isinstance(recipe.window, tuple):
        return 0
    changed = [first for first, _, weight in windows(recipe, target or 0) if weight != 1.0 or recipe.rearranges]
    return min(changed, default=chooser.training.steps)


def check_budget(budget: Budget, store: Store, specs: Sequence[RunSpec]) -> None:
    """Refuses what would cost more than it may: hours of the runs that are not trained yet, disk of all.

    Raises:
        MechError: with every number that is too large.
    """
    if not budget.limits_work:
        return
    waiting = {spec.run for spec in specs if missing_checkpoints(store, spec)}
    found = estimates(tuple(specs), store)
    gigabytes = sum(each.disk_bytes for each in found) / 1e9
    seconds = [second for each in found if each.cost.run in waiting for second in each.seconds]
    over = []
    if budget.gigabytes is not None and gigabytes > budget.gigabytes:
        over.append(f"{gigabytes:.3g} GB of {budget.gigabytes:g} GB")
    if budget.hours is not None and None in seconds:
        over.append(f"hours that cannot be told here, where no update could be timed, of {budget.hours:g}")
    hours = sum(each or 0.0 for each in seconds) / 3600
    if budget.hours is not None and hours > budget.hours:
        over.append(f"{hours:.3g} hours of {budget.hours:g}")
    if over:
        raise MechError(
            f"budget: {len(specs)} runs would take {' and '.join(over)}; nothing was started",
            "take fewer arms, seeds or checkpoints, or raise `budget`; `mech plan FILE` shows what costs most",
        )
