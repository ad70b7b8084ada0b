"""The launcher's connections to Dagster's history: few are opened, others see what is written, a killed process loses nothing."""

import os
import shutil
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from mech_pipeline.assets.history import alone_in, open_history
from tests.support.places import ROOT

THING = dg.AssetKey("thing")


@pytest.fixture
def home(tmp_path, monkeypatch):
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)  # where Dagster's own way finds the relative folder
    with alone_in(tmp_path), open_history(tmp_path):
        pass
    return tmp_path


@pytest.fixture
def connections():
    """How many have been opened."""
    opened = []

    def count(*_):
        opened.append(1)

    event.listen(Engine, "connect", count)
    yield opened
    event.remove(Engine, "connect", count)


def tell(instance, count):
    for number in range(count):
        instance.report_runless_asset_event(dg.AssetMaterialization(THING, metadata={"number": number}))


def told(instance):
    records = instance.fetch_materializations(THING, limit=100).records
    return sorted(record.asset_materialization.metadata["number"].value for record in records)


def plainly(home):
    """The history as every other program of Dagster opens it."""
    return dg.DagsterInstance.from_config(str(home))


def test_others_see_each_event_at_once_and_it_stays_when_the_history_is_closed(home):
    with open_history(home) as instance, plainly(home) as other:
        tell(instance, 3)
        assert told(other) == [0, 1, 2]
        tell(other, 1)
        assert told(instance) == [0, 0, 1, 2]
    with plainly(home) as other:
        assert told(other) == [0, 0, 1, 2]


def test_more_events_open_no_more_connections(home, connections):
    with open_history(home) as instance:
        tell(instance, 1)
        connections.clear()
        tell(instance, 5)
        assert connections == []
    with plainly(home) as other:
        connections.clear()
        tell(other, 5)
        assert len(connections) >= 5, "Dagster's own way does: if it no longer does, ours is not needed"


def test_of_many_runs_one_database_is_kept_open(home):
    @dg.job
    def nothing():
        pass

    with open_history(home) as instance:
        runs = [nothing.execute_in_process(instance=instance).run_id for _ in range(3)]
        places = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        open_now = {Path(place).stem for place in places if place.endswith(".db")}
        assert open_now & set(runs) <= {runs[-1]}
        assert all(instance.all_logs(run) for run in runs)


def test_the_database_of_a_later_run_is_as_dagster_makes_it(home):
    @dg.job
    def nothing():
        pass

    with plainly(home) as other:
        theirs = nothing.execute_in_process(instance=other).run_id
    with open_history(home) as instance:
        runs = [nothing.execute_in_process(instance=instance).run_id for _ in range(3)]
    places = {run: next(home.rglob(f"{run}.db")) for run in (theirs, *runs)}
    with plainly(home) as other:
        events = {run: [each.get_dagster_event().event_type for each in other.all_logs(run)] for run in places}
    assert all({dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS} <= {*events[run]} for run in places)
    made = {run: described(place) for run, place in places.items()}
    assert all(made[run] == made[theirs] for run in runs)
    assert not list(home.rglob("*.new"))


def described(database):
    """Tables and indices, revision and journal of a database."""
    with closing(sqlite3.connect(database)) as connection:
        schema = connection.execute("select type, name, sql from sqlite_master order by 1, 2").fetchall()
        revision = connection.execute("select version_num from alembic_version").fetchall()
        return schema, revision, connection.execute("pragma journal_mode").fetchone()


def test_threads_write_one_after_the_other(home):
    with open_history(home) as instance:
        threads = [threading.Thread(target=tell, args=(instance, 4)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told(instance) == sorted([0, 1, 2, 3] * 3)


@pytest.mark.process
def test_what_a_killed_process_has_told_is_there(home):
    pid = os.fork()
    if pid == 0:
        with open_history(home) as instance:
            tell(instance, 4)
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with plainly(home) as other:
        assert told(other) == [0, 1, 2, 3]
        tell(other, 1)
        assert told(other) == [0, 0, 1, 2, 3]
