"""Which task a free worker gets: the most urgent of all that are ready, also of those that just became so."""

from types import SimpleNamespace

import pytest

from mech_pipeline.assets.launcher.launch import Launch, _readers
from mech_pipeline.assets.launcher.worker import Outcome, Task
from tests.support import tiny

FIRST, SECOND = "tiny.baseline.s0", "tiny.baseline.s1"


class Plan:
    """What is ready by run; `later` becomes known by a look at the run."""

    def __init__(self, ready, later):
        self._ready, self._later = ready, later

    def look(self, name=None):
        self._ready.setdefault(name, {}).update(self._later.pop(name, {}))

    def ready(self, name):
        return self._ready.get(name, {})

    def ended(self, stage, name):
        self._ready[name].pop(stage, None)


class Connection:
    """Of a worker that does at once what it is told."""

    def __init__(self):
        self.sent = []

    def send(self, task):
        self.sent.append((task.stage, task.run))


@pytest.fixture
def launch(monkeypatch):
    """A launch of two runs with ledgers; its only worker has just finished the analysis of the first."""
    made = Launch.__new__(Launch)
    made._specs = {spec.run: spec for spec in (tiny.spec_of(0), tiny.spec_of(1))}
    made.experiment, made.file = SimpleNamespace(experiment="tiny"), "tiny.yaml"
    done = Task("analysis", FIRST, "tiny", "tiny.yaml")
    made._pool = [SimpleNamespace(task=done, connection=Connection(), began=0.0)]

    def finish():
        (worker,) = made._pool
        finished, worker.task = worker.task, None
        return [Outcome(finished)]

    monkeypatch.setattr(made, "_receive", finish)
    return made


def order(launch):
    """The tasks that the worker was given, until nothing was left."""
    (worker,) = launch._pool
    finished = worker.task
    launch._plan.ready(FIRST).setdefault(finished.stage, {})
    launch._loop()
    return worker.connection.sent


def test_what_an_ended_stage_makes_ready_goes_before_less_urgent_work_that_was_ready_already(launch):
    launch._plan = Plan({FIRST: {"ledger": {}}, SECOND: {"training": {}}}, {FIRST: {"formation": {}}})
    assert order(launch)[0] == ("formation", FIRST)


def test_more_urgent_work_is_not_kept_waiting_for_a_look(launch):
    """The look takes half a second, in which the worker would do nothing."""
    looks = []
    launch._plan = Plan({FIRST: {"spec": {}, "ledger": {}}}, {FIRST: {"formation": {}}})
    monitored = launch._plan.look
    launch._plan.look = lambda name=None: (looks.append((name, list(launch._pool[0].connection.sent))), monitored(name))
    assert order(launch)[:2] == [("spec", FIRST), ("formation", FIRST)]
    assert looks[1] == (FIRST, [("spec", FIRST)]), "the look came after the task"


def test_readers_of_analysis_are_what_its_end_may_make_ready():
    assert "formation" in _readers("analysis")
    assert "ledger" not in _readers("analysis")
    assert {"analysis", "ledger"} <= _readers("training")
