"""Partitions: what Dagster's grid has a square for. Steps are 8 digits, zero-padded, and kept in rising order.

A square is a promise: what is planned of a launched run, and nothing else, so that "missing" means missing from the plan.
Stages that do not cover every run and every kept state (ledger, circuits, influence) have runs and steps of their own; a
product of runs whose plans differ has squares all the same that belong to no plan, and these can be skipped (`factory`).
`registering` adds the keys.
"""

from collections.abc import Iterable

import dagster as dg

from mech_pipeline.pipeline.stage import Scope, Stage, everybody
from mech_pipeline.pipeline.stages import STAGES

BY_HAND = ("zoom",)
"""Assets that only people ask for: nothing is missing where nobody did."""
BATCH = dg.BackfillPolicy.multi_run(64)

RUNS, STEPS, EXPERIMENTS = "launched_runs", "launched_steps", "launched_experiments"
PLANS = "experiment_files"
_SOME = {"choice": "choosing_runs", "comparison": "compared_experiments"}
"""Names that older histories know; others are made of the stage's."""
SOME = tuple(stage for stage in STAGES if stage.scope in (Scope.RUN, Scope.EXPERIMENT) and stage.asked is not everybody)
"""Stages of runs and experiments that only some ask for."""
ON_DEMAND = {"zoom": "zoomed_runs", "compaction": "compacted_runs"} | {
    asset: _SOME.get(stage.name, f"{stage.name}_{stage.scope.value}s") for stage in SOME for asset in stage.assets
}
"""Names under which Dagster keeps the keys; of the runs (or experiments) of some assets too, which most never need."""

runs = dg.DynamicPartitionsDefinition(name=RUNS)
steps = dg.DynamicPartitionsDefinition(name=STEPS)
run_step = dg.MultiPartitionsDefinition({"run": runs, "step": steps})
experiments = dg.DynamicPartitionsDefinition(name=EXPERIMENTS)
plans = dg.DynamicPartitionsDefinition(name=PLANS)

_BY_RUN = dg.MultiToSingleDimensionPartitionMapping("run")
_SAME = dg.IdentityPartitionMapping()
_SAME_CELL = dg.MultiPartitionMapping({name: dg.DimensionPartitionMapping(name, _SAME) for name in ("run", "step")})


def step_key(step: int) -> str:
    """400 → "00000400"."""
    return f"{step:08d}"


def partition(run: str, step: int) -> dg.MultiPartitionKey:
    """The partition of one checkpoint."""
    return dg.MultiPartitionKey({"run": run, "step": step_key(step)})


def split_keys(keys: Iterable[str]) -> tuple[str, list[int]]:
    """(run, steps) of the partitions of one batch; batches never mix runs."""
    pairs = [key.keys_by_dimension for key in keys if isinstance(key, dg.MultiPartitionKey)]
    names = {pair["run"] for pair in pairs}
    assert len(names) == 1, "Dagster cuts batches at run boundaries"
    return names.pop(), sorted(int(pair["step"]) for pair in pairs)


def grid_names(stage: Stage) -> tuple[str, str]:
    """Names of the dynamic partitions of a stage of checkpoints or targets: of its runs, of its steps."""
    return (RUNS, STEPS) if stage.grid is None else (f"{stage.name}_runs", f"{stage.name}_steps")


def grid_of(stage: Stage) -> dg.MultiPartitionsDefinition:
    """Runs × steps of a stage of checkpoints or targets."""
    if stage.grid is None:
        return run_step
    of_runs, of_steps = (dg.DynamicPartitionsDefinition(name=name) for name in grid_names(stage))
    return dg.MultiPartitionsDefinition({"run": of_runs, "step": of_steps})


def scope_of(asset: str) -> Scope:
    """Of what an asset's partitions are."""
    return next(output.scope or stage.scope for stage in STAGES for output in stage.outputs if output.name == asset)


def partitions_of(asset: str) -> dg.PartitionsDefinition:
    """Runs, runs × steps, or experiments."""
    if asset in ON_DEMAND:
        return dg.DynamicPartitionsDefinition(name=ON_DEMAND[asset])
    stage = next(stage for stage in STAGES if asset in stage.assets)
    return {Scope.RUN: runs, Scope.EXPERIMENT: experiments}.get(scope_of(asset)) or grid_of(stage)


def mapping(upstream: str, downstream: str) -> dg.PartitionMapping | None:
    """Which partitions of one asset a partition of another reads; none: the one of the same name.

    All, where Dagster has no way to say less: the runs of an experiment, and runs of a grid that has runs of its own.
    """
    above, below = partitions_of(upstream), partitions_of(downstream)
    if above == below:
        return None
    of_cells = [isinstance(each, dg.MultiPartitionsDefinition) for each in (above, below)]
    if all(of_cells):
        return _SAME_CELL
    if scope_of(downstream) == Scope.EXPERIMENT:
        return _SAME if scope_of(upstream) == Scope.EXPERIMENT else dg.AllPartitionMapping()
    if any(of_cells):
        return _BY_RUN if {runs, run_step} == {above, below} else dg.AllPartitionMapping()
    return _SAME
