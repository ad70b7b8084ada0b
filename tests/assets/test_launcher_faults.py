"""What killed processes leave, and how a launch notices: no process is started here, and nothing is waited for."""

import fcntl
import multiprocessing
import os
import signal
import sqlite3
import tempfile
from types import SimpleNamespace

import dagster as dg
import pytest

from mech_pipeline import stopping
from mech_pipeline.assets.history import alone_in, is_own, open_history
from mech_pipeline.assets.launcher import launch as launching
from mech_pipeline.assets.launcher import scratch
from mech_pipeline.assets.launcher.execute import close_orphans
from mech_pipeline.assets.launcher.launch import Launch, _Worker
from mech_pipeline.assets.launcher.worker import Outcome, Spoken, Task
from mech_pipeline.assets.tags import PROCESS_TAG
from mech_pipeline.errors import MechError
from mech_pipeline.process_identity import identity
from mech_pipeline.project import Project
from mech_pipeline.resolve import read_experiment
from mech_pipeline.store.store import Store
from tests.support.tiny import write_project

TASK = Task("analysis", "tiny.baseline.s0", "tiny", "tiny.yaml")


class Process:
    """A worker's process as its launcher sees it; `die` is what the fork server does when it ends."""

    def __init__(self) -> None:
        self.sentinel, self._writer = os.pipe()
        self.killed = False

    def die(self) -> None:
        os.close(self._writer)

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float) -> None:
        pass


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """A launch with one busy worker, and the worker's end of its pipe."""
    ours, theirs = multiprocessing.Pipe()
    made = Launch.__new__(Launch)
    said: list[object] = []
    made.emit, made.project = said.append, SimpleNamespace(home=write_project(tmp_path).parents[1])
    made._died_idle, made._pool = 0, [_Worker(Process(), ours, TASK)]
    monkeypatch.setattr(Launch, "_start_worker", lambda self: self._pool.append("another"))
    return made, theirs, said


def test_a_workers_death_is_seen_while_something_holds_its_pipe(launch):
    made, theirs, said = launch
    worker = made._pool[0]
    theirs.send(Spoken("one more line"))
    worker.process.die()
    (outcome,) = made._receive()
    assert "its process died" in outcome.problem
    assert said == ["one more line"]
    assert worker.process.killed, "what may still compute does not"
    assert made._pool == ["another"]


@pytest.mark.parametrize("last_words", [b"", b"\x00\x00\x01\x00half", b"\x00\x00\x00\x04junk"])
def test_a_message_that_ends_in_the_middle_is_a_death(launch, last_words):
    made, theirs, _ = launch
    os.write(theirs.fileno(), last_words)
    theirs.close()
    (outcome,) = made._receive()
    assert "its process died" in outcome.problem


def test_what_a_worker_finished_before_it_died_counts(launch):
    made, theirs, _ = launch
    theirs.send(Outcome(TASK))
    theirs.close()
    made._pool[0].process.die()
    assert [outcome.problem for outcome in made._receive()] == [None]
    assert made._pool == ["another"]


def test_workers_that_die_without_work_end_the_launch_at_last(launch):
    made, theirs, _ = launch
    made._pool[0].task, made._died_idle = None, launching._MAY_DIE_IDLE
    theirs.close()
    with pytest.raises(MechError, match="before they are given work"):
        made._receive()


def test_runs_of_a_dead_process_are_closed_and_their_places_in_pools_are_free(tmp_path):
    @dg.op(pool="gpu_train")
    def takes_a_place():
        pass

    @dg.job
    def work():
        takes_a_place()

    write_project(tmp_path)
    with open_history(tmp_path) as instance:
        storage = instance.event_log_storage
        runs = {
            who: instance.create_run_for_job(work, tags={PROCESS_TAG: tag}, status=dg.DagsterRunStatus.STARTED).run_id
            for who, tag in {"alive": identity(), "dead": f"{identity()}0"}.items()
        }
        storage.initialize_concurrency_limit_to_default("gpu_train")
        for run in (*runs.values(), "forgotten"):
            assert storage.claim_concurrency_slot("gpu_train", run, "takes_a_place").is_claimed
        assert close_orphans(instance) == 1
        assert instance.get_run_by_id(runs["dead"]).status == dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(runs["alive"]).status == dg.DagsterRunStatus.STARTED
        held = storage.get_concurrency_info("gpu_train")
        assert [slot.run_id for slot in held.claimed_slots] == [runs["alive"]]


def test_only_folders_of_dead_launches_are_abandoned(tmp_path):
    for name in ("mechrun-alive", "mechrun-dead", "mechrun-no-owner", "else"):
        (tmp_path / name).mkdir()
        if name != "mechrun-no-owner":
            (tmp_path / name / "owner").touch()
    (tmp_path / "mechrun-link").symlink_to(tmp_path / "else")
    with (tmp_path / "mechrun-alive" / "owner").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert list(scratch.abandoned(tmp_path)) == [tmp_path / "mechrun-dead"]
    assert len(list(scratch.abandoned(tmp_path))) == 2


def test_a_launch_has_a_folder_of_its_own_and_sweeps_dead_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # pytest's own is too deep for sockets
    monkeypatch.setattr(scratch, "abandoned", lambda place: [dead])
    monkeypatch.setattr(scratch, "_held", [])
    monkeypatch.setenv("TMPDIR", "")
    dead = tmp_path / "dead"
    dead.mkdir()
    folder = scratch.use_own_scratch()
    assert folder.is_dir()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
    assert folder not in list(scratch.abandoned(folder.parent)), "its own lock is held"
    assert scratch.use_own_scratch() == folder
    assert not dead.exists()
    scratch._held.pop().close()
    folder.joinpath("owner").unlink()
    folder.rmdir()


def test_a_launch_with_nothing_to_do_tidies_as_well(launch, tmp_path, monkeypatch):
    made, _, _ = launch
    (tmp_path / "mechrun-dead").mkdir()
    (tmp_path / "mechrun-dead" / "owner").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_history(made.project.home) as instance:
        run = instance.create_run_for_job(
            dg.JobDefinition(name="work", graph_def=dg.GraphDefinition(name="work")),
            tags={PROCESS_TAG: f"{identity()}0"},
            status=dg.DagsterRunStatus.STARTED,
        )
    made.tidy()
    assert not (tmp_path / "mechrun-dead").exists()
    with open_history(made.project.home) as instance:
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_launch_of_some_runs_leaves_the_others_alone(tmp_path):
    experiment = read_experiment(write_project(tmp_path), tmp_path)
    chosen = [spec for spec in experiment.runs() if spec.arm == "control"]
    said: list[object] = []
    project = Project(tmp_path, str(tmp_path / "store"))
    some = Launch(experiment, tmp_path / "x.yaml", project, Store(project.store), said.append, 1, only=chosen)
    assert list(some.todo()) == ["tiny.control.s0", "tiny"]
    everything = Launch(experiment, tmp_path / "x.yaml", project, Store(project.store), said.append, 1)
    assert list(everything.todo()) == [*(spec.run for spec in experiment.runs()), "tiny"]


def test_a_history_is_a_projects_own_where_its_runs_are_processes_of_this_machine(tmp_path):
    write_project(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_project(other)
    with open_history(tmp_path) as mine, open_history(other) as theirs, dg.DagsterInstance.ephemeral() as nobodys:
        assert is_own(tmp_path, mine)
        assert not is_own(tmp_path, theirs)
        assert not is_own(tmp_path, nobodys)
    elsewhere = (
        "run_launcher: {module: dagster._core.launcher.sync_in_memory_run_launcher, class: SyncInMemoryRunLauncher}"
    )
    with (tmp_path / "dagster.yaml").open("a") as settings:
        settings.write(f"\n{elsewhere}\n")
    with open_history(tmp_path) as cluster:
        assert not is_own(tmp_path, cluster)


def test_a_history_with_two_heads_says_how_to_get_out(tmp_path, monkeypatch):
    write_project(tmp_path)
    with alone_in(tmp_path), open_history(tmp_path):
        pass
    (database,) = (path for path in (tmp_path / ".dagster").rglob("runs.db"))
    with sqlite3.connect(database) as connection:
        connection.execute("insert into alembic_version values ('of nobody')")
    with pytest.raises(MechError, match=r"history .*\.dagster") as caught, open_history(tmp_path):
        pass
    assert "no result is in it" in caught.value.next_step


def test_the_first_signal_raises_once_and_all_are_remembered(monkeypatch):
    monkeypatch.setattr(stopping._State, "asked", None)
    with pytest.raises(stopping.Stopped):
        stopping._stop(signal.SIGTERM, None)
    stopping._stop(signal.SIGINT, None)
    assert stopping.asked() == signal.SIGTERM
