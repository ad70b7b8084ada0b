"""A locked alarm that rings while a run trains: the states before it are kept, training is held, and goes on when released."""

import copy

import pytest

from mech_pipeline.commands.run import _release as let_go
from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.alone import compute_all
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.holds import hold_of, release
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.signals import scores as scoring
from mech_pipeline.pipeline.signals.alert import alert_of
from mech_pipeline.pipeline.signals.lock_rows import lock_rows
from mech_pipeline.pipeline.stage import View
from mech_pipeline.pipeline.standing import standing
from mech_pipeline.pipeline.training.listening import Listening
from mech_pipeline.resolve import resolve
from mech_pipeline.signals.locking import NEVER, Lock, Rule
from mech_pipeline.signals.registry import signal_names
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.pipeline.test_branching import assert_same_bits, states, trained, updates_of
from tests.support import tiny
from tests.support.choosing import NAME, QUICK

RUN, SIBLING = "tiny.baseline.s0", "tiny.baseline.s1"
HOLD, ZOOM = {"hold": True}, {"zoom": 1}
__all__ = ["trained"]


@pytest.fixture
def store(folder, local_store):
    """In the project folder, which is the current one."""
    return local_store


def experiment_of(on_alarm, measure=("elapsed_step",), **training):
    """Runs of 12 updates with a checkpoint after every third; seed 5 is explored, the others are listened to."""
    content = copy.deepcopy(tiny.TINY) | QUICK | {"checkpoints": {"every": 3}, "influence": {}, "ledger": {}}
    content |= {"formation": [{"mechanism": NAME, "threshold": 99.0, "sustain": 2}], "seeds": [0, 1, 5]}
    content["arms"] = {"baseline": {}, "control": {"data": {"plain": 1.0, "tiled": 0.0}, "seeds": [0, 1, 2, 5]}}
    content["training"] = {"steps": 12, "batch": 8} | training
    scored = {"events": ["baseline"], "negatives": ["control"], "explore_seeds": [5], "claim": 0.9}
    content["signals"] = {"measure": [*measure]} | scored | ({} if on_alarm is None else {"on_alarm": on_alarm})
    return resolve(parse_experiment(content))


def lock_at(store, threshold, signal="elapsed_step"):
    """Rings at the first checkpoint at which the signal lies above."""
    lock = Lock({signal: Rule(signal, "level", 1, {0.05: NEVER, 0.9: threshold}, 0.5)}, signal, 0.9, (5,), "explored")
    write(store, [Block(Cell("signal_locks", "tiny"), lock_rows(lock), "planted")], "1")


def compute(store, experiment, runs=(RUN,)):
    """Some runs, and nothing that is of the whole experiment."""
    specs = [spec for spec in experiment.runs() if spec.run in runs]
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}
    compute_all(store, specs, corpora, without=("report", "compaction", "scoring"))


def column(store, sql):
    return query(store.root, sql).to_series().to_list()


def steps_of(store, run=RUN):
    return column(store, f"select step from checkpoints where run = '{run}' order by step")


@pytest.mark.parametrize("stacked", [False, True])
def test_a_run_is_held_where_it_rings_and_trains_on_with_the_same_bits(store, tmp_path, trained, stacked):
    experiment, both = experiment_of(HOLD, stacked=stacked), (RUN, SIBLING)
    spec = experiment.runs()[0]
    lock_at(store, 4)
    compute(store, experiment, both)
    assert updates_of(trained, RUN) == updates_of(trained, SIBLING) == set(range(6))
    assert column(store, f"select status from runs where run = '{RUN}'") == ["held"]
    assert standing(store, spec).startswith(
        f"3 of 3 checkpoints, held at step 6 by the alarm of elapsed_step (`mech run FILE --release {RUN}` goes on)"
    )
    assert column(store, f"select lower from formation where run = '{RUN}'") == [6]
    trained.clear()
    with pytest.raises(MechError, match=r"run tiny\.baseline\.s9 is not of this experiment → did you mean"):
        let_go(store, experiment.runs(), "tiny.baseline.s9")
    let_go(store, experiment.runs(), RUN)
    compute(store, experiment, both)
    assert updates_of(trained, RUN) == set(range(6, 12))
    assert updates_of(trained, SIBLING) == set(), "only one was released"
    assert column(store, f"select status from runs where run = '{RUN}'") == ["complete"]
    assert "released after the alarm of elapsed_step at step 6" in standing(store, spec)
    longer = Store(tmp_path / "longer")
    compute(longer, experiment_of(None, stacked=stacked))
    assert_same_bits(states(store, RUN), states(longer, RUN))


def test_states_before_the_alarm_are_kept_and_measured(store, tmp_path):
    lock_at(store, 4)
    compute(store, experiment_of(ZOOM))
    assert steps_of(store) == [0, 3, 4, 5, 6, 9, 12]
    measured = f"select distinct step from mechanism_values where run = '{RUN}' order by step"
    assert column(store, measured) == [0, 3, 4, 5, 6, 9, 12]
    assert column(store, f"select step from signal_values where run = '{RUN}' order by step") == [0, 3, 6, 9, 12]
    longer = Store(tmp_path / "longer")
    compute(longer, experiment_of(None))
    whole = states(longer, RUN)
    assert_same_bits({step: state for step, state in states(store, RUN).items() if step in whole}, whole)


def test_a_held_run_is_zoomed_into(store, trained):
    lock_at(store, 4)
    compute(store, experiment_of(HOLD | {"zoom": 2}))
    assert steps_of(store) == [0, 3, 5, 6]
    assert max(updates_of(trained, RUN)) == 5


def test_a_run_that_was_killed_before_it_was_written_down_is_held_all_the_same(store, trained):
    lock_at(store, 4)
    compute(store, experiment_of(HOLD))
    store.delete("holds", f"run = '{RUN}'")
    trained.clear()
    compute(store, experiment_of(HOLD))
    assert updates_of(trained, RUN) == set()
    assert hold_of(store, experiment_of(HOLD).runs()[0]).step == 6


def test_what_rang_before_anything_was_locked_is_past(store, trained):
    experiment = experiment_of(HOLD | ZOOM)
    compute(store, experiment)
    store.delete("signal_locks", "experiment = 'tiny'")
    lock_at(store, 4)
    store.delete("checkpoints", "step > 9")
    trained.clear()
    compute(store, experiment)
    assert updates_of(trained, RUN) == {9, 10, 11}
    assert steps_of(store) == [0, 3, 6, 9, 12]
    assert column(store, "select run from holds") == []


def test_without_a_wish_the_alarm_only_warns(store, trained):
    lock_at(store, 4)
    experiment = experiment_of(None)
    compute(store, experiment)
    assert updates_of(trained, RUN) == set(range(12))
    assert alert_of(store, experiment.runs()[0]).step == 6


def test_what_is_heard_in_training_is_what_the_stage_measures(store):
    """Every signal: of the state before, of moments, of gradients."""
    names = signal_names()
    experiment = experiment_of(HOLD, names)
    compute(store, experiment)
    run = OpenRun(store, experiment.runs()[0])
    for name in names:
        store.delete("signal_locks", "experiment = 'tiny'")
        lock_at(store, 1e9, name)
        heard = Listening.of(run, lambda line: None)
        assert not heard.over(12)
        stored = query(
            store.root, f"select step, value from signal_values where run = '{RUN}' and signal = '{name}' order by step"
        )
        values = [heard.values[step] if heard.values[step] == heard.values[step] else None for step in stored["step"]]
        assert values == stored["value"].to_list(), name


def test_nothing_is_scored_while_a_run_is_held(store):
    experiment = experiment_of(HOLD)
    view = View(store, experiment.runs(), {}, experiment)
    assert scoring.refused(view) is None
    lock_at(store, 4)
    compute(store, experiment)
    assert scoring.refused(view) == (
        f"waits for runs that their alarm holds: 1, the first of them {RUN}; see `mech status`"
    )


def test_only_a_held_run_is_released(store):
    with pytest.raises(MechError, match=r"tiny\.baseline\.s0 is not held: it was never held"):
        release(store, experiment_of(HOLD).runs()[0])


@pytest.mark.parametrize(
    ("on_alarm", "change", "words"),
    [
        (HOLD, {"processes": 2}, "a run of several processes cannot be held"),
        ({"zoom": -1}, {}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_held_is_refused(on_alarm, change, words):
    with pytest.raises(MechError, match=words):
        experiment_of(on_alarm, **change)


def test_an_alarm_must_be_locked_by_something():
    content = copy.deepcopy(tiny.TINY) | {"signals": {"measure": ["elapsed_step"], "on_alarm": HOLD}}
    with pytest.raises(MechError, match="on_alarm needs an alarm"):
        parse_experiment(content)
