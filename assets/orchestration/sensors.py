"""Sensors: experiment files that were dropped or edited, and work that waits for launched runs."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.orchestration.jobs import STAGE_JOBS, plan_job
from mech_pipeline.assets.orchestration.known import KnownCurrent
from mech_pipeline.assets.orchestration.launching import LAUNCHED
from mech_pipeline.assets.orchestration.waiting import Board, Waiting, is_free, look, look_at_report, reported_at_night
from mech_pipeline.assets.partitions import PLANS
from mech_pipeline.assets.registering import register_stored
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.work import stored_specs
from mech_pipeline.resources.store import ExperimentsResource, StoreResource
from mech_pipeline.spec.experiment_files import experiment_files as files_in
from mech_pipeline.spec.experiment_files import named_in
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.reading.snapshot import take_snapshot
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

LOOK_SECONDS = 1.5
"""Of a tick of `work`; runs that are left are looked at in the next one."""
_known = KnownCurrent()


@dg.sensor(job=plan_job, minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def experiment_files(
    context: dg.SensorEvaluationContext, store: StoreResource, experiments: ExperimentsResource
) -> dg.SensorResult:
    """Reads new and edited files in experiments/ and has their cost shown; the grid gets what the store holds.

    Trains nothing. A file with a mistake is a failed partition of `experiment_plan` that says what is wrong.
    """
    before = json.loads(context.cursor or "{}")
    seen: dict[str, list[str]] = before.get("files", {})
    if before.get("store") != (known := _version(store.open())):
        register_stored(context.instance, store.open())
    files = {path.name: path for path in files_in(Path(experiments.folder))}
    now = {name: _looked_at(path, seen.get(name)) for name, path in files.items()}
    keys = {key for _, key in now.values()}
    context.instance.add_dynamic_partitions(PLANS, sorted(keys))
    for gone in {key for _, key in seen.values()} - keys:
        context.instance.delete_dynamic_partition(PLANS, gone)
    requests = [
        dg.RunRequest(
            run_key=f"{name}:{sha256}",
            partition_key=key,
            tags={"mech/file": name},
            run_config={"ops": {"experiment_plan": {"config": {"file": str(files[name])}}}},
        )
        for name, (sha256, key) in now.items()
        if seen.get(name) != [sha256, key]
    ]
    reason = None if requests else "no new or edited file"
    return dg.SensorResult(run_requests=requests, skip_reason=reason, cursor=json.dumps({"files": now, "store": known}))


def _version(store: Store) -> str:
    """Changes whenever a run is launched or finished, by whomever."""
    found = take_snapshot(store.files, {"runs": TABLES["runs"]}).tables["runs"]
    return str(found and found.version)


def _looked_at(path: Path, before: list[str] | None) -> list[str]:
    """SHA-256 of a file, and the experiment that it describes; what was looked at before is not read again."""
    sha256 = _sha256(path)
    return before if before is not None and before[0] == sha256 else [sha256, named_in(path)]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dg.sensor(
    jobs=list(STAGE_JOBS.values()),
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts what launched runs need and do not have: training, analysis beside it, then attribution. The store "
    "decides what is current. Off: nothing new is started.",
)
def work(
    context: dg.SensorEvaluationContext, store: StoreResource, experiments: ExperimentsResource
) -> dg.SensorResult:
    """Starts what launched runs need and do not have: training, analysis beside it, then attribution. The store decides.

    Every stage computes only what is not current. A batch that failed is started again only after another launch.
    """
    launched, nightly = context.instance.get_dynamic_partitions(LAUNCHED), reported_at_night(context.instance)
    if not launched and not nightly:
        return dg.SensorResult(skip_reason="nothing was launched: see the job launch_experiment")
    opened = store.open()
    current = _known.at(opened)
    unsure = [run for run in launched if run not in current]
    specs = [store.located(spec) for spec in stored_specs(opened, unsure) if is_free(opened, spec.experiment)]
    first = int(context.cursor or 0) % max(1, len(specs))
    found, looked = _look(context.instance, opened, specs[first:] + specs[:first], current)
    if looked == len(specs) and not found.requests:
        names = {spec.experiment for spec in stored_specs(opened, launched)} | nightly
        _look_at_reports(context.instance, opened, experiments, names, current, found)
    notes = found.notes if looked == len(specs) else [f"looked at {looked} of {len(specs)} runs", *found.notes]
    reason = None if found.requests else "; ".join(notes) or "everything launched is current"
    for note in notes:
        context.log.info(note)
    return dg.SensorResult(run_requests=found.requests, skip_reason=reason, cursor=str(first + looked))


def _look(
    instance: dg.DagsterInstance, store: Store, specs: Sequence[RunSpec], current: set[str]
) -> tuple[Waiting, int]:
    """As many runs as there is time for, one at least; those with nothing to do are added to `current`."""
    board, found, began = Board(instance), Waiting(), time.monotonic()
    for looked, spec in enumerate(specs, start=1):
        part = look(board, store, [spec])
        found.requests += part.requests
        found.notes += part.notes
        if not part.batches:
            current.add(spec.run)
        if time.monotonic() - began > LOOK_SECONDS:
            return found, looked
    return found, len(specs)


def _look_at_reports(
    instance: dg.DagsterInstance,
    store: Store,
    experiments: ExperimentsResource,
    names: Iterable[str],
    current: set[str],
    found: Waiting,
) -> None:
    """Adds the reports that what was made calls for; an experiment whose report is current is added to `current`."""
    board = Board(instance)
    for name in sorted({*names} - current):
        if not is_free(store, name):
            continue
        try:
            part = look_at_report(board, store, experiments.load(None, name))
        except MechError as error:
            found.notes.append(str(error))
            continue
        found.requests += part.requests
        found.notes += part.notes
        if not part.batches:
            current.add(name)
