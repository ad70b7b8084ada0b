"""A held run as Dagster sees it: the states that its alarm asked for are partitions, and can be analysed."""

import dagster as dg
import pytest

from mech_pipeline.assets.launcher.execute import Executor
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.registering import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.signals.lock_rows import lock_rows
from mech_pipeline.signals.locking import NEVER, Lock, Rule
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.tiny import write_project

pytestmark = pytest.mark.slow

RUN = "tiny.baseline.s0"
STEPS = [0, 3, 4, 5, 6]


def test_a_held_run_has_its_zoomed_states_as_partitions(tmp_path):
    scored = {"events": ["baseline"], "negatives": ["control"], "explore_seeds": [5], "claim": 0.9}
    arms = {"baseline": {"seeds": [0, 5]}, "control": {"seeds": [5, 6, 7], "data": {"plain": 1.0, "tiled": 0.0}}}
    signals = {"measure": ["elapsed_step"], "on_alarm": {"hold": True, "zoom": 1}} | scored
    change = {
        "ledger": {},
        "influence": {},
        "gradients": [],
        "detectors": [],
        "mechanisms": ["previous_token_attention"],
    }
    change |= {"formation": [{"mechanism": "previous_token_attention", "threshold": 9.0}]}
    file = write_project(tmp_path, **change, arms=arms, signals=signals)
    store = Store(tmp_path / "store")
    rule = Rule("elapsed_step", "level", 1, {0.05: NEVER, 0.9: 5.0}, 0.5)
    lock = Lock({"elapsed_step": rule}, "elapsed_step", 0.9, (5,), "explored")
    write(store, [Block(Cell("signal_locks", "tiny"), lock_rows(lock), "planted")], "1")
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        register(instance, load_experiment(file).runs()[:1])
        executor = Executor(build_definitions(str(store.root), tmp_path / "experiments"), instance, launcher_pid=1)
        for asset in ("run_spec", "tokens", "training_run"):
            executor.run_assets([asset], RUN)
        known = instance.get_materialized_partitions(dg.AssetKey("checkpoint"))
        assert known == {str(partition(RUN, step)) for step in STEPS}
        executor.step_assets(["mechanism_values"], RUN, 0, 24)
    found = query(store.root, "select step from mechanism_values order by step")["step"].to_list()
    assert found == STEPS
    assert query(store.root, f"select status from runs where run = '{RUN}'").item() == "held"
