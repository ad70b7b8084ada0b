"""From batches that wait in the store to requests for Dagster: nothing twice, nothing that failed already, nothing in flight."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import dagster as dg

from mech_pipeline.assets.orchestration.jobs import STAGE_JOBS
from mech_pipeline.assets.partitions import BY_HAND, partition
from mech_pipeline.assets.registering import register_cells, register_demand
from mech_pipeline.assets.stages import by_step
from mech_pipeline.assets.tags import BY_TAG, EXPERIMENT_TAG, NIGHTLY, RUN_TAG, STAGE_TAG, WORK_TAG
from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.plan import Elsewhere
from mech_pipeline.pipeline.stage import Cells, Scope, Stage, View
from mech_pipeline.pipeline.stages import STAGES, stage_of
from mech_pipeline.pipeline.work import Work, stored_specs, work_of
from mech_pipeline.spec.data import Corpus
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
ENDED_BADLY = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
TRIES = 2
"""Times that a batch may succeed and still wait: then something is wrong, and trying again would never end."""
RETRY_STARTS_WITHIN = timedelta(minutes=5)
"""After a crash Dagster's own retry is waited for so long; then the batch is started anew."""
FEWEST_LIVE = 8
"""Checkpoints that wait before analysis starts beside training; each Dagster run costs seconds to start."""
_PRIORITY = {"training": "1", "analysis": "0"}


@dataclass
class Board:
    """What Dagster knows about batches.

    Attributes:
        in_flight: (run, stage) of batches that are queued, running, or about to be started again after a crash.
        since: when each experiment was last asked for; failures before do not count.
    """

    instance: dg.DagsterInstance
    since: dict[str, datetime] = field(default_factory=dict)
    in_flight: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        found = self.instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT, tags={STAGE_TAG: list(STAGE_JOBS)}))
        under_way = [*found, *self._about_to_be_retried()]
        self.in_flight = {(run.tags[RUN_TAG], run.tags[STAGE_TAG]) for run in under_way if RUN_TAG in run.tags}

    def _about_to_be_retried(self) -> list[dg.DagsterRun]:
        """Crashed a moment ago and not yet started again by Dagster: a second run of the same would only meet its lock."""
        tags: dict[str, str | list[str]] = {STAGE_TAG: list(STAGE_JOBS), "dagster/will_retry": "true"}
        recent = datetime.now(UTC) - RETRY_STARTS_WITHIN
        crashed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags=tags, updated_after=recent)
        return [run for run in self.instance.get_runs(crashed) if "dagster/auto_retry_run_id" not in run.tags]

    def obstacle(self, work: Work, experiment: str) -> str | None:
        """Why a batch is not to be started now; none: start it."""
        if (work.run, work.stage) in self.in_flight:
            return "running"
        after = self.since.get(experiment)
        tried = self.instance.get_runs(dg.RunsFilter(tags={WORK_TAG: work.identity}, created_after=after))
        if any(run.status in ENDED_BADLY for run in tried):
            return "failed; launch the experiment again once the reason is gone"
        if sum(run.status == dg.DagsterRunStatus.SUCCESS for run in tried) >= TRIES:
            return f"still waits after {TRIES} runs that succeeded; please report this"
        return None

    def last_launch(self, experiment: str) -> None:
        """Reads when an experiment was last launched."""
        records = self.instance.get_run_records(
            dg.RunsFilter(job_name="launch_experiment", tags={EXPERIMENT_TAG: experiment}), limit=1
        )
        if records:
            self.since[experiment] = records[0].create_timestamp


@dataclass
class Waiting:
    """What a look at some runs found.

    Attributes:
        requests: batches to start now.
        notes: what stands in the way of others.
        batches: how many are not current, whatever becomes of them.
    """

    requests: list[dg.RunRequest] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: int = 0


def look(board: Board, store: Store, specs: Sequence[RunSpec]) -> Waiting:
    """Requests for everything of these runs that waits and has no obstacle."""
    found, training = Waiting(), {run for run, stage in board.in_flight if stage == "training"}
    for spec in specs:
        board.last_launch(spec.experiment)
        sha256 = known_sha256(spec.corpus.model_dump_json(), board.since.get(spec.experiment), spec.home)
        for work in work_of(store, spec, sha256, elsewhere(store, spec)):
            found.batches += 1
            if work.stage == "training" and (other := _trained_with(spec, training)):
                found.notes.append(f"{spec.run}: trained together with {other}")
                continue
            if work.stage == "analysis" and spec.run in training and len(work.steps) < FEWEST_LIVE:
                continue
            if reason := board.obstacle(work, spec.experiment):
                found.notes.append(f"{work.stage} of {work.run}: {reason}")
                continue
            if work.stage == "training":
                training.add(spec.run)
            register_cells(board.instance, stage_of(work.stage), work.run, work.steps)
            for asset in stage_of(work.stage).assets:
                if asset not in BY_HAND:
                    register_demand(board.instance, asset, work.run)
            found.requests.append(request(work, spec.experiment))
    return found


def look_at_report(board: Board, store: Store, experiment: Experiment) -> Waiting:
    """A request for what an experiment's runs call for, its comparisons and then its report, if nothing of it is running."""
    name = experiment.experiment
    if any(run == name or run.startswith(f"{name}.") for run, _stage in board.in_flight):
        return Waiting(batches=1)
    view = View(store, experiment.runs(), {}, experiment)
    with one_look([*(spec.run for spec in view.specs), name]):
        for stage in (stage for stage in STAGES if stage.scope == Scope.EXPERIMENT):
            if cells := stage.waiting(view):
                return _of_experiment(board, stage, name, cells)
    return Waiting()


def _of_experiment(board: Board, stage: Stage, name: str, cells: Cells) -> Waiting:
    made_from = sorted(set(cells.values()))
    work = Work(name, stage.name, (), len(cells), fingerprint(name, stage.name, *made_from))
    board.last_launch(name)
    if reason := board.obstacle(work, name):
        return Waiting(notes=[f"{stage.name} of {name}: {reason}"], batches=1)
    for asset in stage.assets:
        register_demand(board.instance, asset, name)
    return Waiting([request(work, name)], batches=1)


def reported_at_night(instance: dg.DagsterInstance) -> set[str]:
    """Experiments that the schedule `nightly` worked on in the last day."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    runs = instance.get_runs(dg.RunsFilter(tags={BY_TAG: NIGHTLY}, created_after=yesterday))
    return {run.tags[EXPERIMENT_TAG] for run in runs if EXPERIMENT_TAG in run.tags}


def _trained_with(spec: RunSpec, training: Iterable[str]) -> str | None:
    """A run in flight whose stack trains this one too."""
    arm = f"{spec.experiment}.{spec.arm}."
    return next((run for run in training if run.startswith(arm)), None) if spec.training.stacked else None


def request(work: Work, experiment: str) -> dg.RunRequest:
    """The Dagster run that does a batch."""
    tags = {RUN_TAG: work.run, WORK_TAG: work.identity, EXPERIMENT_TAG: experiment}
    tags["dagster/priority"] = _PRIORITY.get(work.stage, "-1")
    name = STAGE_JOBS[work.stage].name
    if not by_step(stage_of(work.stage)):
        return dg.RunRequest(job_name=name, partition_key=work.run, tags=tags)
    return dg.RunRequest(job_name=name, tags=tags | step_range(work))


def step_range(work: Work) -> dict[str, str]:
    """Tags of a range of partitions: one Dagster run for all of them."""
    return {
        "dagster/asset_partition_range_start": partition(work.run, work.steps[0]),
        "dagster/asset_partition_range_end": partition(work.run, work.steps[-1]),
    }


def is_free(store: Store, experiment: str) -> bool:
    """Whether no `mech run` works on the experiment."""
    try:
        with store.lock(f"experiment-{experiment}", f"look at experiment {experiment}"):
            return True
    except MechError:
        return False


def elsewhere(store: Store, spec: RunSpec) -> Elsewhere:
    """Other runs of the store, whose results a run may read."""

    def find(run: str) -> tuple[RunSpec, str] | None:
        found = [other.at(spec.home) for other in stored_specs(store, [run])]
        return (found[0], known_sha256(found[0].corpus.model_dump_json(), home=spec.home)) if found else None

    return find


@lru_cache(maxsize=64)
def known_sha256(corpus: str, _launched: datetime | None = None, home: Path | None = None) -> str:
    """The hash of a corpus, read once in a process for each launch: an edited one counts once the run is launched again."""
    return corpus_sha256(read_corpus(Corpus.model_validate(json.loads(corpus)).at(home or Path.cwd())))
