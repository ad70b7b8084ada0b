"""The locked alarm as Dagster shows it: a warning on checkpoints of a run that is still measured, and none without a lock."""

import dagster as dg
import pytest

from mech_pipeline.assets.launcher.execute import Executor
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.registering import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.signals.alert import alert_of
from mech_pipeline.pipeline.signals.lock_rows import lock_rows
from mech_pipeline.signals.locking import NEVER, Lock, Rule
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.store import Store
from tests.support.tiny import write_project

pytestmark = pytest.mark.slow

RUN, OTHER = "tiny.baseline.s0", "tiny.baseline.s1"
CHECK = dg.AssetCheckKey(dg.AssetKey("checkpoint"), "no_alarm")


def lock_at(store, threshold):
    """A lock whose alarm rings when more than `threshold` updates have passed."""
    rule = Rule("elapsed_step", "level", 1, {0.01: NEVER, 0.05: threshold}, 0.5)
    lock = Lock({"elapsed_step": rule}, "elapsed_step", 0.05, (100,), "explored")
    write(store, [Block(Cell("signal_locks", "tiny"), lock_rows(lock), "planted")], "1")


def evaluations(instance):
    """By partition: whether it passed, and how serious it is if not."""
    records = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=100)
    found = [record.event.dagster_event.asset_check_evaluation_data for record in records]
    return {each.partition: each for each in found}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Two runs of the tiny experiment that measure a signal; nothing is locked yet."""
    home = tmp_path_factory.mktemp("home")
    change = {"ledger": {}, "influence": {}, "gradients": [], "detectors": [], "arms": {"baseline": {}}}
    change |= {"formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2}]}
    file = write_project(home, **change, signals={"measure": ["elapsed_step"]})
    definitions = build_definitions(str(home / "store"), home / "experiments")
    (home / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        specs = load_experiment(file).runs()
        register(instance, specs)
        executor = Executor(definitions, instance, launcher_pid=1)
        for run in (RUN, OTHER):
            for asset in ("run_spec", "tokens", "training_run"):
                executor.run_assets([asset], run)
        yield definitions, instance, executor, Store(home / "store"), specs


def test_without_a_lock_nothing_is_said_and_with_one_every_later_checkpoint_warns(graph):
    definitions, instance, executor, store, specs = graph
    executor.step_assets(["signal_values"], OTHER, 0, 24)
    assert evaluations(instance) == {}
    assert alert_of(store, specs[0]) is None
    lock_at(store, 10)
    executor.step_assets(["signal_values"], RUN, 0, 6)
    found = evaluations(instance)
    assert {str(partition(RUN, step)) for step in (0, 3, 6)} == set(found)
    assert all(each.passed for each in found.values()), "it has not rung yet"
    executor.step_assets(["signal_values"], RUN, 12, 24)
    found = evaluations(instance)
    rings = {key: not each.passed for key, each in found.items()}
    assert rings == {str(partition(RUN, step)): step >= 12 for step in specs[0].checkpoint_steps()}
    (said,) = {each.metadata["says"].value for each in found.values() if not each.passed}
    assert said == (
        f"ALARM in {RUN} at step 12: elapsed_step (level) above 10, locked for false alarms in less than 0.05 of runs"
    )
    assert {each.severity for each in found.values()} == {dg.AssetCheckSeverity.WARN}
    by_hand(definitions, instance)


def by_hand(definitions, instance):
    """All runs whose experiment has a lock, the one that was measured before it as well."""
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_check_selection={CHECK}, asset_selection=set()
    )
    (made,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert not made.passed
    assert made.severity == dg.AssetCheckSeverity.WARN
    assert (made.metadata["runs listened to"].value, made.metadata["rang"].value) == (2, 2)


def test_an_alarm_that_must_never_ring_is_quiet(graph):
    _, _, _, store, specs = graph
    lock_at(store, NEVER)
    alert = alert_of(store, specs[1])
    assert alert.step is None
    assert alert.words == "quiet: no elapsed_step (level) above inf so far"


def test_a_run_that_does_not_measure_the_chosen_signal_is_not_listened_to(graph):
    _, _, _, store, specs = graph
    lock_at(store, 10)
    assert alert_of(store, specs[0].model_copy(update={"signals": ("training_loss",)})) is None
