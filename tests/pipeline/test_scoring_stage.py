"""The stage `scoring` on planted values: locked once on explored seeds, evaluated on the others, never changed silently."""

import shutil

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.signals.lock_rows import stored_lock
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.signals.scoring import evaluate
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.planted_signals import experiment_of, plant, view_of
from tests.support.tiny import MINIMAL


@pytest.fixture(scope="module")
def planted_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted") / "store"
    plant(Store(root), experiment_of().runs())
    return root


@pytest.fixture
def planted(planted_once, tmp_path):
    """A store with twelve seeds of both arms."""
    return Store(shutil.copytree(planted_once, tmp_path / "store"))


def test_what_is_locked_on_explored_seeds_is_evaluated_on_the_others(planted):
    experiment = experiment_of()
    stage, view = stage_of("scoring"), view_of(planted, experiment)
    assert {cell.table for cell in stage.waiting(view)} == {"signal_locks", "signal_scores", "signal_alarms"}
    assert stage.work(view) == 3
    assert stage.waiting(view_of(planted, experiment)) == {}
    root = planted.root
    locks = query(root, "select distinct signal, direction, explored_seeds, chosen from signal_locks order by 1").rows()
    assert locks[1] == ("training_loss", -1, "0,1,2,3", True)
    rows = query(
        root,
        "select signal, target, negatives, false_alarms, events, announced, lead_median, lead_share_median, label "
        "from signal_scores where target = 0.5 order by 1",
    ).rows()
    assert rows[0][:6] == ("elapsed_step", 0.5, 8, 0, 8, 0)
    assert rows[1][:6] == ("training_loss", 0.5, 8, 0, 8, 8)
    assert rows[1][6:] == (40.0, 0.5, "INCONCLUSIVE")  # eight events are few
    alarms = query(
        root,
        "select event, alarm, count(*) from signal_alarms where signal = 'training_loss' and target = 0.5 group by all",
    ).rows()
    assert sorted(alarms, key=str) == [(80, 40, 8), (None, None, 8)]
    targets = query(root, "select distinct target from signal_scores order by 1").rows()
    assert [target for (target,) in targets] == [0.01, 0.05, 0.1, 0.5]


def test_the_stored_lock_is_the_one_that_was_made(planted):
    experiment = experiment_of()
    stage_of("scoring").work(view_of(planted, experiment))
    lock, sha256 = stored_lock(planted, experiment.experiment)
    assert lock.sha256 == sha256
    assert lock.chosen == "training_loss"


@pytest.mark.slow
def test_more_unseen_runs_are_scored_by_the_same_lock(planted):
    few = experiment_of()
    stage_of("scoring").work(view_of(planted, few))
    _, before = stored_lock(planted, few.experiment)
    more = experiment_of(14)
    plant(planted, [spec for spec in more.runs() if spec.seed >= 12])
    view = view_of(planted, more)
    assert stage_of("scoring").lacks(view) is None
    assert {cell.table for cell in stage_of("scoring").waiting(view)} == {"signal_scores", "signal_alarms"}
    assert stage_of("scoring").work(view) == 2
    assert stored_lock(planted, more.experiment)[1] == before
    assert query(planted.root, "select distinct negatives from signal_scores").rows() == [(10,)]


@pytest.mark.parametrize(
    "change",
    [
        {"measure": ["training_loss", "elapsed_step", "parameter_norm"]},
        {"explore_seeds": [0, 1, 2, 3, 4]},
        {"claim": 0.6},
    ],
)
def test_a_change_after_the_lock_is_refused_in_words(planted, change):
    experiment = experiment_of()
    stage_of("scoring").work(view_of(planted, experiment))
    view = view_of(planted, experiment_of(**change))
    reason = stage_of("scoring").lacks(view)
    assert reason is not None
    assert "would change a lock" in reason
    with pytest.raises(MechError, match="would change a lock"):
        stage_of("scoring").work(view)


def test_explored_runs_that_came_out_otherwise_later_are_refused_too(planted):
    experiment = experiment_of()
    stage_of("scoring").work(view_of(planted, experiment))
    wrong = {"x.none.s1"}
    plant(planted, [spec for spec in experiment.runs() if spec.run in wrong], wrong)
    assert "would change a lock" in stage_of("scoring").lacks(view_of(planted, experiment))


def test_runs_that_came_out_otherwise_are_left_out_and_counted(planted):
    experiment = experiment_of()
    wrong = {"x.none.s6", "x.event.s7", "x.event.s8"}
    plant(planted, [spec for spec in experiment.runs() if spec.run in wrong], wrong)
    stage_of("scoring").work(view_of(planted, experiment))
    rows = query(planted.root, "select distinct negatives, events, not_formed, formed_anyway from signal_scores").rows()
    assert rows == [(7, 6, 2, 1)]


def test_too_few_negatives_that_are_left_are_refused_with_the_number(planted):
    experiment = experiment_of()
    wrong = {f"x.none.s{seed}" for seed in range(4, 8)}
    plant(planted, [spec for spec in experiment.runs() if spec.run in wrong], wrong)
    with pytest.raises(MechError, match="4 unseen negative runs cannot show .* 5 are needed"):
        stage_of("scoring").work(view_of(planted, experiment))


def test_rows_of_a_lock_that_were_edited_are_found_out(planted):
    experiment = experiment_of()
    stage_of("scoring").work(view_of(planted, experiment))
    rows = query(planted.root, "select * from signal_locks").to_dict(as_series=False)
    rows["threshold"] = [threshold + 1 for threshold in rows["threshold"]]
    planted.write("signal_locks", rows, replace={"experiment": ["x"]}, code_version="1")
    lock, sha256 = stored_lock(planted, "x")
    with pytest.raises(MechError, match="it was changed"):
        evaluate(lock, "training_loss", [], sha256=sha256)


def test_signals_that_are_only_measured_are_not_scored(planted):
    experiment = parse_experiment(MINIMAL | {"signals": {"measure": ["elapsed_step"]}})
    view = view_of(planted, experiment)
    assert stage_of("scoring").waiting(view) == {}
    assert stage_of("scoring").lacks(view) is None
