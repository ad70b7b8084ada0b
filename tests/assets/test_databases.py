"""Dagster's SQLite databases are made whole or not at all, whenever the process that makes them is killed."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import Engine, event

from mech_pipeline.assets.history import alone_in, open_history
from mech_pipeline.errors import MechError
from tests.support.places import ROOT

DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")


@pytest.fixture
def home(tmp_path):
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    return tmp_path


def used(home):
    with alone_in(home), open_history(home) as instance:
        instance.add_dynamic_partitions("runs", ["one"])
        return instance.get_dynamic_partitions("runs")


def killed_at(home, statement):
    """Uses a history in a process of its own, which kills itself before that SQL statement; its signal, 0 if it ended before."""
    pid = os.fork()
    if pid == 0:
        done = 0

        def count(*_):
            nonlocal done
            done += 1
            if done == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", count)
        used(home)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("statement", [3, 40, 60, 80, 95, 130, 165])
def test_a_history_whose_making_was_killed_is_made_by_the_next_process(home, statement):
    """There are some 190 statements; without the making aside, those from 70 to 105 left a history that nothing could use."""
    assert killed_at(home, statement) == signal.SIGKILL
    assert used(home) == ["one"]
    found = {path.relative_to(home / ".dagster").as_posix() for path in (home / ".dagster").rglob("*.db")}
    assert found == set(DATABASES), "nothing is left aside"


@pytest.mark.parametrize("database", DATABASES)
def test_a_database_that_is_gone_is_made_again_and_the_others_stay(home, database):
    used(home)
    (home / ".dagster" / database).unlink()
    assert used(home) == ["one"]


def test_a_history_that_another_program_left_half_made_is_named(home):
    used(home)
    with closing(sqlite3.connect(home / ".dagster/history/runs/index.db")) as connection:
        connection.execute("drop table dynamic_partitions")
        connection.commit()
    with pytest.raises(
        MechError, match=r"index\.db was not made to its end → remove it and run again: no result is in it"
    ):
        used(home)
