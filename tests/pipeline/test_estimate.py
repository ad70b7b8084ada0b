"""What an experiment is expected to cost, and a budget that refuses it before it starts."""

import copy

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline import estimate
from mech_pipeline.pipeline.cost import Cost
from mech_pipeline.pipeline.estimate import check_budget, estimates
from mech_pipeline.pipeline.stages import reads_of
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.budget import Budget
from mech_pipeline.spec.experiment import parse_experiment
from tests.support import tiny
from tests.support.choosing import QUICK, compute

PLAIN = {"ledger": {}, "influence": {}, "checkpoints": {"every": 3}}
LATE = {"by": "random", "count": 3, "at": 12, "window": [7, 9]}


@pytest.fixture(autouse=True)
def one_second_an_update(tmp_path, monkeypatch):
    """Nothing is timed, and a state has a million parameters."""
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)

    def costs(specs):
        return [
            Cost(spec.run, 10**6, spec.training.steps, 0, 5, 10**9, seconds=3600.0 * spec.training.steps)
            for spec in specs
        ]

    monkeypatch.setattr(estimate, "costs", costs)


def experiment_of(arms, **change):
    content = copy.deepcopy(tiny.TINY) | QUICK | PLAIN | change
    return resolve(parse_experiment(content | {"arms": {"baseline": {}} | arms}))


def test_what_is_taken_over_is_not_trained():
    held = {"head": [0, 0], "do": "zero_output", "from": 5}
    arms = {
        "late": {"choose": LATE},
        "around": {"choose": LATE | {"outside": True}},
        "always": {"choose": LATE | {"window": None}},
        "held": {"intervene": [held]},
        "other": {"intervene": [held], "optimizer": {"beta1": 0.5}},
    }
    found = estimates(experiment_of(arms).runs())
    assert [each.taken for each in found] == [0, 6, 0, 0, 3, 0]
    assert [each.seconds[0] for each in found] == [3600.0 * (12 - taken) for taken in (0, 6, 0, 0, 3, 0)]


def test_hours_and_disk_beyond_the_budget_are_refused_with_the_numbers(local_store):
    specs = experiment_of({"late": {"choose": LATE}}).runs()
    check_budget(Budget(hours=18, gigabytes=2), local_store, specs)
    with pytest.raises(MechError, match=r"2 runs would take 18 hours of 17; nothing was started"):
        check_budget(Budget(hours=17, gigabytes=2), local_store, specs)
    with pytest.raises(MechError, match=r"2 GB of 1\.9 GB and 18 hours of 17"):
        check_budget(Budget(hours=17, gigabytes=1.9), local_store, specs)


def test_hours_are_those_of_what_is_still_to_be_trained(local_store):
    experiment = experiment_of({"always": {"choose": LATE | {"window": None}}})
    with pytest.raises(MechError, match="24 hours of 13"):
        check_budget(Budget(hours=13), local_store, experiment.runs())
    compute(local_store, resolve_only(experiment, "baseline"))
    check_budget(Budget(hours=13), local_store, experiment.runs())
    with pytest.raises(MechError, match="12 hours of 11"):
        check_budget(Budget(hours=11), local_store, experiment.runs())


def resolve_only(experiment, arm):
    content = copy.deepcopy(tiny.TINY) | QUICK | PLAIN | {"arms": {arm: {}}}
    return resolve(parse_experiment(content))


def test_hours_that_nobody_can_tell_are_no_hours_that_are_allowed(local_store, monkeypatch):
    monkeypatch.setattr(
        estimate, "costs", lambda specs: [Cost(spec.run, 1, 12, 0, 5, 1, seconds=None) for spec in specs]
    )
    with pytest.raises(MechError, match="hours that cannot be told here"):
        check_budget(Budget(hours=1), local_store, experiment_of({}).runs())


def test_too_many_runs_are_refused_when_the_file_is_read():
    assert experiment_of({}, budget={"runs": 1}).budget.runs == 1
    with pytest.raises(MechError, match=r"budget.runs: 2 runs \(arms × seeds\) are asked for, 1 are allowed"):
        experiment_of({}, budget={"runs": 1}, seeds=[0, 1])


def test_an_arm_names_what_it_waits_for():
    influence = {"mechanisms": QUICK["influence"]["mechanisms"], "at": [12], "seeds": "all"}
    top = {"by": "influence", "share": 0.1, "at": 12}
    runs = experiment_of({"top": {"choose": top}}, influence=influence).runs()
    assert reads_of(runs[0]) == {}
    assert reads_of(runs[1]) == {"tiny.baseline.s0": ["formation", "influence"]}
