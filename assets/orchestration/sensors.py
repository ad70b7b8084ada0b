"""Sensors: experiment files that were dropped or edited, and work that waits for launched runs."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.orchestration.jobs import STAGE_JOBS, plan_job
from mech_pipeline.assets.orchestration.known import KnownCurrent
from mech_pipeline.assets.orchestration.launching import LAUNCHED
from mech_pipeline.assets.orchestration.waiting import Board, Waiting, is_free, look
from mech_pipeline.assets.partitions import register
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.work import stored_specs
from mech_pipeline.resources.store import ExperimentsResource, StoreResource
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

LOOK_SECONDS = 1.5
"""Of a tick of `work`; runs that are left are looked at in the next one."""
_known = KnownCurrent()


@dg.sensor(job=plan_job, minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def experiment_files(context: dg.SensorEvaluationContext, experiments: ExperimentsResource) -> dg.SensorResult:
    """Reads new and edited files in experiments/: registers their runs and steps, and has their cost shown.

    Trains nothing. A file with a mistake is named here, and again when it is edited.
    """
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    now = {path.name: _sha256(path) for path in sorted(Path(experiments.folder).glob("*.y*ml"))}
    requests, mistakes = [], []
    for name, sha256 in now.items():
        if seen.get(name) == sha256:
            continue
        try:
            experiment = experiments.read(Path(experiments.folder) / name)
            register(context.instance, experiment.runs())
        except MechError as error:
            mistakes.append(str(error))
            context.log.error(str(error))
            continue
        requests.append(
            dg.RunRequest(run_key=f"{name}:{sha256}", partition_key=experiment.experiment, tags={"mech/file": name})
        )
    reason = None if requests else "; ".join(mistakes) or "no new or edited file"
    return dg.SensorResult(run_requests=requests, skip_reason=reason, cursor=json.dumps(now))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dg.sensor(
    jobs=list(STAGE_JOBS.values()),
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts what launched runs need and do not have: training, analysis beside it, then attribution. The store "
    "decides what is current. Off: nothing new is started.",
)
def work(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
    """Starts what launched runs need and do not have: training, analysis beside it, then attribution. The store decides.

    Every stage computes only what is not current. A batch that failed is started again only after another launch.
    """
    launched = context.instance.get_dynamic_partitions(LAUNCHED)
    if not launched:
        return dg.SensorResult(skip_reason="nothing was launched: see the job launch_experiment")
    opened = store.open()
    current = _known.at(opened)
    unsure = [run for run in launched if run not in current]
    specs = [store.located(spec) for spec in stored_specs(opened, unsure) if is_free(opened, spec.experiment)]
    first = int(context.cursor or 0) % max(1, len(specs))
    found, looked = _look(context.instance, opened, specs[first:] + specs[:first], current)
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
