"""What an experiment is expected to cost, and a budget that refuses it before it starts."""

import copy

import numpy as np
import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline import discovery_cost, estimate, stage_estimate
from mech_pipeline.pipeline.cost import Cost
from mech_pipeline.pipeline.discovery import needs
from mech_pipeline.pipeline.estimate import check_budget, estimates
from mech_pipeline.pipeline.stage_costs import run_costs, unit_costs
from mech_pipeline.pipeline.stage_estimate import analysis_cells
from mech_pipeline.pipeline.stages import reads_of
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.budget import Budget
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
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
    monkeypatch.setattr(stage_estimate, "_EVERY_RUN", {})
    monkeypatch.setattr(stage_estimate, "_CELL_UPDATES", 0.0)


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


def test_a_window_that_formation_decides_is_known_once_the_baseline_has_formed(local_store, monkeypatch):
    by = {"by": "random", "count": 3, "window": "after_target"}
    runs = experiment_of({"after": {"choose": by}, "named": {"choose": by | {"at": 6}}}).runs()
    assert [each.taken for each in estimates(runs)] == [0, 0, 6]
    assert [each.taken for each in estimates(runs, local_store)] == [0, 0, 6], "nothing has formed yet"
    monkeypatch.setattr(estimate, "target_of", lambda store, recipe, run, chooser: 10)
    assert [each.taken for each in estimates(runs, local_store)] == [0, 9, 6], "every third state is kept"


def test_what_may_end_early_is_said_to_be_at_most():
    stopping = {"training": {"steps": 12, "batch": 8, "stop": {"settled": 3}}}
    aimed = {"influence": {"mechanisms": QUICK["influence"]["mechanisms"], "at": "formation"}}
    plain, stopped, at = (estimates(experiment_of({}, **each).runs())[0].at_most for each in ({}, stopping, aimed))
    assert plain == ()
    assert stopped == ("runs may stop early (training.stop)",)
    assert at == ("influence aims at where a run forms",)


@pytest.mark.slow
def test_analysis_counts_as_it_took_before_and_else_as_in_the_demo(local_store, monkeypatch):
    monkeypatch.setattr(stage_estimate, "_EVERY_RUN", {"spec": 5.0, "choice": 3.0, "formation": 1.0, "compaction": 1.0})
    monkeypatch.setattr(stage_estimate, "_CELL_UPDATES", 0.5)
    experiment = experiment_of({"top": {"choose": LATE}}, detectors=["prefix_matching"])
    runs, cells = experiment.runs(), analysis_cells(experiment.runs()[0])
    fresh = [each.seconds[-1] for each in estimates(runs, local_store)]
    assert fresh == pytest.approx([0.5 * 3600 * cells + 7, 0.5 * 3600 * cells + 10])
    compute(local_store, experiment)
    made = query(local_store.root, "select distinct cells from stage_costs where stage = 'analysis'")["cells"]
    assert made.to_list() == [cells]
    took = run_costs(local_store, [spec.run for spec in runs])
    (of_a_cell,) = [each for each in unit_costs(local_store, None) if each.stage == "analysis"]
    rest = of_a_cell.cpu_seconds * cells + took["spec"] + took["formation"] + 1.0  # nothing was compacted
    later = estimates(runs, local_store)
    assert [each.seconds[-1] for each in later] == pytest.approx([rest, rest + took["choice"]])
    assert {each.not_counted for each in later} == {()}


def test_stages_of_which_nothing_is_known_are_named():
    (found,) = estimates(experiment_of({}, readouts={"windows": [[0, 6]]}).runs())
    assert "readouts" in found.not_counted


@pytest.mark.parametrize(
    ("asked", "stages"),
    [
        ({"tokens": 64}, {"movement": 12 * 12 * 64 / 512}),
        ({"tokens": 64, "path": "chord"}, {"movement": 12 * 3.2 * 64 / 512}),
        ({"atoms": 2}, {"atoms": 2.3 * 12}),
        ({}, {}),
    ],
)
def test_discovery_counts_in_updates_until_it_was_measured(asked, stages):
    (found,) = estimates(experiment_of({}, discovery=asked).runs())
    assert found.seconds[-1] == pytest.approx(3600 * sum(stages.values()))
    assert not {"movement", "atoms"} & set(found.not_counted)


def test_looking_at_what_tokens_need_costs_more_the_more_there_are_but_nothing_of_movement():
    costs = [
        estimates(experiment_of({}, discovery={"tokens": count, "by": "needs"}).runs())[0].seconds[-1]
        for count in (100, 200)
    ]
    assert 0 < costs[0] < costs[1] <= 2 * costs[0]


def test_looking_at_what_tokens_need_is_counted_as_it_is_done():
    assert discovery_cost._ORDERS == needs._ORDERS
    assert len(needs.looks_of(np.arange(100))) == discovery_cost._LOOKS
    assert discovery_cost._FOLLOWED % needs.FOLLOWED == 0


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
