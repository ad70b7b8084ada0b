"""Adds partitions: runs and steps of what was launched, before anything of it is made, and of nothing else.

Dagster cuts batches into ranges in order of insertion, so a step that is added late would widen every range. Then all steps
are put back in order, in one transaction: whoever looks meanwhile sees the old order or the new one. Their history stays,
because it hangs on the key.
"""

from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import DynamicPartitionsTable

from mech_pipeline.assets.partitions import EXPERIMENTS, ON_DEMAND, RUNS, SOME, STEPS, grid_names, step_key
from mech_pipeline.pipeline.stage import Scope, Stage
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.pipeline.work import all_specs
from mech_pipeline.spec.run import RunSpec, check_run_id
from mech_pipeline.store.store import Store


def register(instance: dg.DagsterInstance, specs: Iterable[RunSpec]) -> None:
    """Adds runs and all that their specs plan, before anything is trained."""
    specs = list(specs)
    _add(instance, RUNS, [check_run_id(spec.run) for spec in specs])
    _add(instance, EXPERIMENTS, sorted({spec.experiment for spec in specs}))
    register_steps(instance, {step for spec in specs for step in spec.checkpoints.possible(spec.training.steps)})
    for stage in SOME:
        asking = [spec for spec in specs if stage.asked(spec)]
        keys = {spec.run: None for spec in asking} if stage.scope == Scope.RUN else {s.experiment: None for s in asking}
        for asset in stage.assets:
            _add(instance, ON_DEMAND[asset], list(keys))
    for stage in STAGES:
        if stage.grid is not None:
            for spec in specs:
                if stage.asked(spec):
                    register_cells(instance, stage, spec.run, stage.grid(spec))


def register_steps(instance: dg.DagsterInstance, wanted: Iterable[int]) -> None:
    """Adds steps that states are kept at."""
    _add_steps(instance, STEPS, wanted)


def register_zoom(instance: dg.DagsterInstance, spec: RunSpec) -> None:
    """Adds a run into which somebody zooms."""
    register(instance, [spec])
    register_demand(instance, "zoom", spec.run)


def register_demand(instance: dg.DagsterInstance, asset: str, name: str) -> None:
    """Adds a run (or an experiment) that needs an asset which most never need; of other assets, nothing."""
    if asset in ON_DEMAND:
        _add(instance, ON_DEMAND[asset], [name])


def register_cells(instance: dg.DagsterInstance, stage: Stage, run: str, wanted: Iterable[int]) -> None:
    """Adds cells of a stage that has runs and steps of its own."""
    if stage.grid is None or not (wanted := list(wanted)):
        return
    of_runs, of_steps = grid_names(stage)
    _add(instance, of_runs, [run])
    _add_steps(instance, of_steps, wanted)


def register_stored(instance: dg.DagsterInstance, store: Store) -> None:
    """Adds what a store holds already, whoever launched it: also targets that were known only once they were reached."""
    specs = all_specs(store)
    register(instance, specs)
    for stage in STAGES:
        if stage.scope == Scope.TARGET:
            for run, reached in _reached(store, stage).items():
                register_cells(instance, stage, run, reached)


def _reached(store: Store, stage: Stage) -> dict[str, list[int]]:
    """Steps of each run at which a stage has rows; of its smallest table, which is the last."""
    table = stage.tables[-1]
    with store.reading(table) as connection:
        rows = connection.execute(f"select run, list(distinct step) from {table} group by run").fetchall()
    return dict(rows)


def _add_steps(instance: dg.DagsterInstance, name: str, wanted: Iterable[int]) -> None:
    present = list(instance.get_dynamic_partitions(name))
    missing = sorted({*map(step_key, wanted)} - {*present})
    if missing and present and missing[0] < present[-1]:
        _put_in_order(instance, name, missing)
    else:
        _add(instance, name, missing)


def _add(instance: dg.DagsterInstance, name: str, keys: Sequence[str]) -> None:
    if keys:
        instance.add_dynamic_partitions(name, keys)


def _put_in_order(instance: dg.DagsterInstance, name: str, missing: Sequence[str]) -> None:
    storage, table = instance.event_log_storage, DynamicPartitionsTable
    assert isinstance(storage, SqlEventLogStorage), "Dagster keeps partitions in SQLite or Postgres"
    with storage.index_transaction() as connection:
        taken_out = table.delete().where(table.c.partitions_def_name == name).returning(table.c.partition)
        kept = [key for (key,) in connection.execute(taken_out).fetchall()]
        rows = [{"partitions_def_name": name, "partition": key} for key in sorted({*kept, *missing})]
        connection.execute(table.insert(), rows)
