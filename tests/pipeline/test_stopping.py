"""Runs that end early by their rule: what is kept is what a longer run keeps, and formation is censored where it ends."""

import copy

import pytest

from mech_pipeline.causal.survival import Formed, median
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.stops import stopped_at
from mech_pipeline.pipeline.training.watching import reason_to_stop
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.analysis import Event
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.training import Hopeless, Stop
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.pipeline.test_branching import assert_same_bits, states, trained, updates_of
from tests.pipeline.test_choice_stage import NAME, QUICK, compute
from tests.support import tiny

RUN = "tiny.baseline.s0"
SETTLED = {"settled": 5}
HOPELESS = {"hopeless": {"at": 5, "below": 50.0}}
__all__ = ["trained"]


@pytest.fixture
def store(folder, local_store):
    """In the project folder, which is the current one."""
    return local_store


def experiment_of(stop, threshold=-99.0, training=None, **change):
    content = copy.deepcopy(tiny.TINY) | QUICK | {"checkpoints": {"every": 3}, "influence": {}, "ledger": {}}
    content |= {"formation": [{"mechanism": NAME, "threshold": threshold, "sustain": 2}], "arms": {"baseline": {}}}
    content["training"] = {"steps": 12, "batch": 8} | ({} if stop is None else {"stop": stop}) | (training or {})
    return resolve(parse_experiment(content | change))


def one(store, sql):
    return query(store.root, sql).row(0, named=True)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_run_that_formed_and_settled_ends_there_with_the_states_of_a_longer_one(store, tmp_path, trained, stacked):
    experiment = experiment_of(SETTLED, training={"stacked": stacked}, seeds=[0, 1])
    compute(store, experiment)
    assert updates_of(trained, RUN) == set(range(6))
    row = one(store, f"select step, reason, value from stops where run = '{RUN}'")
    assert (row["step"], row["reason"]) == (6, "settled")
    value = f"select value from mechanism_values where run = '{RUN}' and step = 6 and mechanism = '{NAME}'"
    assert row["value"] == one(store, value)["value"]
    assert one(store, f"select status from runs where run = '{RUN}'")["status"] == "complete"
    assert one(store, f"select max(update_step) as last from batches where run = '{RUN}'")["last"] == 5
    found = one(store, f"select step, lower, censored from formation where run = '{RUN}'")
    assert found == {"step": 0, "lower": -1, "censored": False}
    assert compute(store, experiment) == []
    longer = Store(tmp_path / "longer")
    compute(longer, experiment_of(None, training={"stacked": stacked}))
    whole = states(longer, RUN)
    assert_same_bits(states(store, RUN), {step: whole[step] for step in (0, 3, 6)})


def test_a_hopeless_run_is_censored_at_its_last_evaluation(store):
    experiment = experiment_of(HOPELESS, threshold=99.0)
    compute(store, experiment)
    assert one(store, "select step, reason from stops") == {"step": 6, "reason": "hopeless"}
    found = one(store, f"select step, lower, upper, censored from formation where run = '{RUN}'")
    assert found == {"step": None, "lower": 6, "upper": None, "censored": True}
    assert median([Formed(0, 2, 3), Formed(1, found["lower"], found["upper"])]).step == 3


def test_a_rule_that_never_applies_changes_nothing(store, trained):
    experiment = experiment_of(HOPELESS | {"settled": 3}, threshold=99.0)
    hopeful = experiment_of({"settled": 3}, threshold=99.0)
    compute(store, hopeful)
    assert updates_of(trained, RUN) == set(range(12))
    assert query(store.root, "select * from stops").is_empty()
    assert stopped_at(store, experiment.runs()[0]) is None


def test_a_killed_run_stops_where_it_would_have_and_another_rule_goes_on_from_there(store, trained):
    compute(store, experiment_of(SETTLED))
    store.delete("stops", f"run = '{RUN}'")  # as if it had been killed between its last state and that row
    trained.clear()
    compute(store, experiment_of(SETTLED))
    assert updates_of(trained, RUN) == set()
    assert one(store, "select step from stops")["step"] == 6
    compute(store, experiment_of({"settled": 8}))
    assert updates_of(trained, RUN) == {6, 7, 8}
    assert one(store, "select step from stops")["step"] == 9
    store.delete("checkpoints", "step = 3")
    compute(store, experiment_of({"settled": 8}))
    assert one(store, "select step from stops")["step"] == 9
    compute(store, experiment_of(None))
    assert len(states(store, RUN)) == 5


def test_the_rule_looks_only_at_what_was_evaluated():
    event = Event(mechanism="m", threshold=1.0, sustain=2)
    both = Stop(settled=10, hopeless=Hopeless(at=15, below=0.5))
    assert reason_to_stop(both, event, {0: 0.0, 10: 0.1}) is None
    assert reason_to_stop(both, event, {0: 0.0, 10: 0.1, 20: 0.4}) == "hopeless"
    assert reason_to_stop(both, event, {0: 0.0, 10: 0.1, 20: 0.6}) is None
    assert reason_to_stop(both, event, {0: 0.0, 10: 0.1, 20: 0.6, 30: 0.0}) is None, "decided once, at 20"
    assert reason_to_stop(both, event, {0: 0.0, 10: 1.0, 20: 0.4}) == "hopeless", "one evaluation across is not formed"
    assert reason_to_stop(both, event, {0: 0.0, 10: 1.0, 20: 1.1}) == "settled"
    assert reason_to_stop(Stop(settled=30), event, {0: 0.0, 10: 1.0, 20: 1.1}) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stop": {}}, "name `settled`, `hopeless`, or both"),
        ({"stop": {"hopeless": {"at": 13, "below": 0.0}}}, "13 is after the last of 12 updates"),
        (
            {"stop": SETTLED, "influence": {"mechanisms": [NAME], "at": [12]}},
            "names steps that a stopped run may not reach",
        ),
        ({"stop": SETTLED, "in_training": {"mechanisms": [NAME]}}, "not with in_training"),
        ({"stop": SETTLED, "training": {"processes": 2}}, "cannot stop early"),
        (
            {
                "stop": SETTLED,
                "detectors": ["prefix_matching"],
                "formation": [{"detector": "prefix_matching", "threshold": 0.5}],
            },
            "must be of a mechanism",
        ),
    ],
)
def test_what_cannot_stop_is_refused(change, words):
    with pytest.raises(MechError) as caught:
        experiment_of(**change)
    assert words in str(caught.value)
