"""Arms that choose, in Dagster: what a choice says of its sources, and comparisons before the report."""

import dagster as dg
import pytest

from mech_pipeline.assets.launcher.execute import Executor
from mech_pipeline.assets.orchestration.waiting import Board, look_at_report
from mech_pipeline.assets.partitions import ON_DEMAND, partition
from mech_pipeline.assets.registering import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.pipeline.comparison.stage import COMPARISON
from mech_pipeline.pipeline.stage import View
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.store import Store
from tests.support.causes import ARMS, QUICK, compute
from tests.support.tiny import write_project

pytestmark = pytest.mark.slow
RUN, BASELINE = "tiny.top.s0", "tiny.baseline.s0"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Everything computed; then the choice and the comparisons once more, as Dagster runs."""
    home = tmp_path_factory.mktemp("home")
    arms = {name: ARMS[name] for name in ("baseline", "top", "matched")}
    file = write_project(home, **QUICK | {"arms": arms})
    experiment, store = load_experiment(file), Store(home / "store")
    compute(store, experiment)
    definitions = build_definitions(str(home / "store"), home / "experiments")
    (home / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        register(instance, experiment.runs())
        executor = Executor(definitions, instance, launcher_pid=1)
        executor.run_assets(["choices"], RUN)
        executor.run_assets(["comparisons"], "tiny")
        yield store, experiment, instance, definitions


def test_a_choice_links_to_the_influence_that_it_was_made_by(graph):
    store, _, instance, _ = graph
    event = instance.get_latest_materialization_event(dg.AssetKey("choices")).asset_materialization
    said = event.metadata["chosen by"].value
    version = stored_versions(store, "influence", BASELINE)[
        Cell("influence", BASELINE, 12, "induction_copy_advantage", "adjoint")
    ].data_version
    assert f"[influence of {BASELINE} on induction_copy_advantage up to step 12]" in said
    assert f"partition={partition(BASELINE, 12)}".replace("|", "%7C") in said
    assert version[:12] in said


def test_comparisons_are_a_partition_of_experiments_that_choose(graph):
    _, _, instance, definitions = graph
    assert instance.get_dynamic_partitions(ON_DEMAND["comparisons"]) == ["tiny"]
    assert instance.get_materialized_partitions(dg.AssetKey("comparisons")) == {"tiny"}
    assert (
        dg.AssetKey("comparisons")
        in definitions.resolve_asset_graph().get(dg.AssetKey("experiment_report")).parent_keys
    )


def test_the_sensor_asks_for_comparisons_and_then_for_the_report(graph):
    store, experiment, instance, _ = graph
    view = View(store, experiment.runs(), {}, experiment)
    store.delete("comparisons", "true")
    (asked,) = look_at_report(Board(instance), store, experiment).requests
    assert (asked.job_name, asked.partition_key) == ("comparison_stage", "tiny")
    COMPARISON.work(view)
    store.delete("reports", "true")
    (asked,) = look_at_report(Board(instance), store, experiment).requests
    assert asked.job_name == "report_stage"
