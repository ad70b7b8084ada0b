"""Arms that differ from a step on take the states before it from the run that trained them, and are the same bits."""

import copy
from pathlib import Path

import pytest

from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.branching import departs_at
from mech_pipeline.pipeline.training.training import train
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.loop import Trainer
from tests.support import tiny
from tests.support.choosing import QUICK, assert_same_bits, compute, experiment_of, states

LATE = {"by": "random", "share": 0.3, "at": 12, "window": [7, 9]}
EVERY = {"checkpoints": {"every": 3}}
PLAN = EVERY | {"ledger": {}, "influence": {}}


@pytest.fixture
def store(local_store):
    return local_store


@pytest.fixture
def trained(monkeypatch):
    """The (run, update) of every update that is computed."""
    found = []
    step = Trainer.update_from

    def counted(self, state, examples, gradient, loss):
        found.append((self.run, state.step))
        return step(self, state, examples, gradient, loss)

    monkeypatch.setattr(Trainer, "update_from", counted)
    return found


def updates_of(trained, run):
    return {update for name, update in trained if name == run}


def trained_from_the_beginning(folder: Path, store: Store, run: str, **change) -> Store:
    """A store of its own in which a run has the same weights, from a file, and nobody to take anything from."""
    query(
        store.root,
        f"select example_id, weight, first_update, last_update from choices where run = '{run}'",
    ).write_csv(folder / "weights.csv")
    alone = Store(folder / "alone")
    content = copy.deepcopy(tiny.TINY) | QUICK | PLAN | change
    content |= {"experiment": "file", "arms": {"baseline": {}}}
    content["data"] = content["data"] | {"weights": "weights.csv"}
    compute(alone, resolve(parse_experiment(content)))
    return alone


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_a_branch_is_the_training_from_the_beginning_bit_for_bit(store, folder, trained, stacked):
    training = {"training": {"steps": 12, "batch": 8, "stacked": stacked}}
    compute(store, experiment_of({"late": LATE}, **PLAN, **training))
    assert updates_of(trained, "tiny.baseline.s0") == set(range(12))
    assert updates_of(trained, "tiny.late.s0") == set(range(6, 12)), "it goes on from the newest state before update 7"
    alone = trained_from_the_beginning(folder, store, "tiny.late.s0", **training)
    assert updates_of(trained, "file.baseline.s0") == set(range(12))
    branch, whole = states(store, "tiny.late.s0"), states(alone, "file.baseline.s0")
    assert_same_bits(branch, whole)
    assert branch[12][1] != states(store, "tiny.baseline.s0")[12][1], "the arm does something"
    metrics = "select step, metric, value from training_metrics where run = '{}' order by all"
    assert query(store.root, metrics.format("tiny.late.s0")).equals(
        query(alone.root, metrics.format("file.baseline.s0"))
    )
    taken = query(
        store.root, "select step, taken_from from checkpoints where run = 'tiny.late.s0' order by step"
    ).rows()
    assert taken == [(step, "tiny.baseline.s0" if step <= 6 else None) for step in (0, 3, 6, 9, 12)]


@pytest.mark.slow
def test_nothing_is_pending_and_all_is_sound_after_a_branch(store, folder):
    experiment = experiment_of({"late": LATE}, **EVERY)
    compute(store, experiment)
    assert compute(store, experiment) == []
    assert verify_store(store.files).damage == []
    late = OpenRun(store, experiment.runs()[1])
    assert late.replay(3, 9)[-1].after.step == 9


@pytest.mark.slow
def test_a_run_that_was_killed_takes_over_only_what_it_lacks(store, folder, trained):
    experiment = experiment_of({"late": LATE}, **PLAN)
    compute(store, experiment)
    before = states(store, "tiny.late.s0")
    store.delete("checkpoints", "run = 'tiny.late.s0' and step in (3, 12)")
    trained.clear()
    compute(store, experiment)
    assert updates_of(trained, "tiny.late.s0") == {9, 10, 11}
    assert_same_bits(states(store, "tiny.late.s0"), before)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["damaged", "deleted", "without metrics"])
def test_what_the_other_run_lost_is_trained(store, folder, trained, harm):
    """Of the baseline's state 6 nothing can be had, so the arm goes on from 3."""
    experiment = experiment_of({"late": LATE}, **PLAN)
    (baseline, late) = experiment.runs()
    compute(store, experiment)
    whole = states(store, "tiny.late.s0")
    store.delete("checkpoints", "run = 'tiny.late.s0'")
    if harm == "damaged":
        (uri,) = query(store.root, f"select uri from checkpoints where run = '{baseline.run}' and step = 6").row(0)
        path = Path(store.root, uri)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
    elif harm == "deleted":
        store.delete("checkpoints", f"run = '{baseline.run}' and step = 6")
    else:
        store.delete("training_metrics", f"run = '{baseline.run}' and step = 5")
    trained.clear()
    said = []
    train(store, late, emit=lambda line: said.append(str(line)))
    assert updates_of(trained, late.run) == set(range(3, 12))
    assert_same_bits(states(store, late.run), whole)
    assert (harm == "damaged") == any("checkpoint 6 of run tiny.baseline.s0 is corrupt" in line for line in said)


def test_another_optimizer_or_seed_is_no_trunk(store, folder, trained):
    content = copy.deepcopy(tiny.TINY) | QUICK | PLAN
    content["arms"] = {"baseline": {}, "late": {"choose": LATE, "optimizer": {"beta1": 0.8}}}
    compute(store, resolve(parse_experiment(content)))
    assert updates_of(trained, "tiny.late.s0") == set(range(12))


@pytest.mark.slow
def test_an_arm_that_acts_at_once_is_trained_from_the_beginning(store, folder, trained):
    experiment = experiment_of({"late": LATE, "early": LATE | {"window": None}}, **PLAN)
    compute(store, experiment)
    assert updates_of(trained, "tiny.early.s0") == set(range(12))
    assert [departs_at(store, spec) for spec in experiment.runs()] == [12, 7, 0]


@pytest.mark.slow
def test_a_stack_whose_seeds_branch_at_one_step(store, folder, trained):
    arms = {"late": LATE}
    change = {"seeds": [0, 1], "training": {"steps": 12, "batch": 8, "stacked": True}} | PLAN
    change["influence"] = {}
    compute(store, experiment_of(arms, **change))
    assert updates_of(trained, "tiny.late.s1") == set(range(6, 12))
    assert updates_of(trained, "tiny.late.s0") == set(range(6, 12))
