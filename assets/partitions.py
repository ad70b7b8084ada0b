"""Partitions: runs × steps, both dynamic. Steps are 8 digits, zero-padded, and kept in rising order.

Dagster cuts batches into ranges in order of insertion, so a step that is added late would widen every range: the steps
are then taken out and put back in order, which keeps their history (it hangs on the key).
"""

from collections.abc import Iterable

import dagster as dg

from mech_pipeline.spec.run import RunSpec, check_run_id

runs = dg.DynamicPartitionsDefinition(name="runs")
steps = dg.DynamicPartitionsDefinition(name="steps")
experiments = dg.DynamicPartitionsDefinition(name="experiments")
run_step = dg.MultiPartitionsDefinition({"run": runs, "step": steps})
by_run = dg.MultiToSingleDimensionPartitionMapping("run")
BATCH = dg.BackfillPolicy.multi_run(64)


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


def register(instance: dg.DagsterInstance, specs: Iterable[RunSpec]) -> None:
    """Adds the partitions of runs and of all steps they may keep, before anything is trained."""
    specs = list(specs)
    instance.add_dynamic_partitions("runs", [check_run_id(spec.run) for spec in specs])
    instance.add_dynamic_partitions("experiments", sorted({spec.experiment for spec in specs}))
    register_steps(instance, {step for spec in specs for step in spec.checkpoints.possible(spec.training.steps)})


def register_steps(instance: dg.DagsterInstance, wanted: Iterable[int]) -> None:
    """Adds the partitions of steps that are not there yet, in order."""
    present = list(instance.get_dynamic_partitions("steps"))
    ordered = sorted({*present, *map(step_key, wanted)})
    if ordered == present:
        return
    if present and ordered[: len(present)] != present:
        for key in present:
            instance.delete_dynamic_partition("steps", key)
    instance.add_dynamic_partitions("steps", ordered)
