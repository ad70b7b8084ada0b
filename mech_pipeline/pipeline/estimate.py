"""What an experiment still costs in all, from measured updates and counted ones, and whether its budget allows it.

    hours   Σ over runs that are not trained (updates to train + ledger + influence + retraining, in updates) · seconds an update
    disk    checkpoints and gradient tensors of all runs

An arm that differs from another run from update t on is trained from that run's newest checkpoint ≤ t on, if the file itself
says t (`choose.window: [t, …]`, `intervene.from`). Analysis and cheap estimators are left out: seconds a checkpoint.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.attribution_cost import attribution_cost, disk_bytes
from mech_pipeline.pipeline.cost import Cost, costs
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.spec.budget import Budget
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


@dataclass(frozen=True)
class RunEstimate:
    """Of one run, if nothing of it were there.

    Attributes:
        taken: updates that it takes over from another run of the experiment.
        seconds: of training, ledger, influence and retraining; none where an update could not be timed.
        disk_bytes: of checkpoints and gradient tensors.
    """

    cost: Cost
    taken: int
    seconds: tuple[float | None, ...]
    disk_bytes: int


def estimates(specs: tuple[RunSpec, ...]) -> list[RunEstimate]:
    """Of each run; some updates of each shape of model are timed."""
    trunks = {spec.trunk_slice() for spec in specs if not (spec.treatments or spec.interventions)}
    return [_estimate(spec, cost, trunks) for spec, cost in zip(specs, costs(specs), strict=True)]


def _estimate(spec: RunSpec, cost: Cost, trunks: Collection[str]) -> RunEstimate:
    asked, unit = attribution_cost(spec), None if cost.seconds is None else cost.seconds / cost.updates
    taken = taken_updates(spec) if spec.trunk_slice() in trunks else 0
    updates = (cost.updates - taken, asked.ledger, asked.influence, asked.retraining)
    seconds = tuple(None if unit is None else unit * each for each in updates)
    return RunEstimate(cost, taken, seconds, disk_bytes(spec, cost))


def taken_updates(spec: RunSpec) -> int:
    """Updates that a run need not train where another run has trained them, as far as its file says so."""
    if spec.data.weights is not None or spec.in_training.mechanisms:
        return 0
    begins = [each.begin for each in spec.interventions]
    if spec.choice is not None:
        window = spec.choice.window
        begins.append(window[0] if isinstance(window, tuple) and not spec.choice.outside else 0)
    return max((step for step in spec.checkpoint_steps() if begins and step <= min(begins)), default=0)


def check_budget(budget: Budget, store: Store, specs: Sequence[RunSpec]) -> None:
    """Refuses what would cost more than it may: hours of the runs that are not trained yet, disk of all.

    Raises:
        MechError: with every number that is too large.
    """
    if not budget.limits_work:
        return
    waiting = {spec.run for spec in specs if missing_checkpoints(store, spec)}
    found = estimates(tuple(specs))
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
