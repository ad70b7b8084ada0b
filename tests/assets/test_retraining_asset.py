"""Retraining through Dagster and into the report: partitions, versions, metadata, and what a reader sees."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from mech_pipeline.assets.launcher.execute import Executor
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.registering import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.reading.query import query
from tests.support.tiny import write_project

pytestmark = pytest.mark.slow

RUN, STEP = "tiny.baseline.s0", 12
NAME = "induction_copy_advantage"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """One run of the tiny experiment up to the report, with two estimators of influence."""
    home = tmp_path_factory.mktemp("home")
    wanted = {
        "mechanisms": [NAME],
        "metasmoothness_steps": 0,
        "at": [STEP],
        "methods": ["adjoint", "gradient_dot"],
        "retraining": {"fractions": [0.1], "subsets": 4, "top": [0.1]},
    }
    change = {"ledger": {}, "gradients": [], "seeds": [0], "arms": {"baseline": {}}, "influence": wanted}
    file = write_project(home, **change)
    definitions = build_definitions(str(home / "store"), home / "experiments")
    (home / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        register(instance, load_experiment(file).runs())
        executor = Executor(definitions, instance, launcher_pid=1)
        for asset in ("run_spec", "tokens", "training_run"):
            executor.run_assets([asset], RUN)
        executor.step_assets(["mechanism_values", "head_scores"], RUN, 0, 24)
        executor.run_assets(["formation"], RUN)
        executor.step_assets(["influence", "reliability"], RUN, STEP, STEP)
        executor.step_assets(["retrainings", "lds"], RUN, 0, 24)
        executor.run_assets(["experiment_report"], "tiny")
        yield definitions, instance, executor, home


def test_only_the_target_step_is_a_partition_and_nothing_is_stale(graph):
    definitions, instance, _, _ = graph
    resolver = CachingStaleStatusResolver(instance, definitions.resolve_asset_graph(), LoadingContextForTest(instance))
    for asset in ("retrainings", "lds"):
        assert set(instance.get_materialized_partitions(dg.AssetKey(asset))) == {str(partition(RUN, STEP))}
        assert resolver.get_status(dg.AssetKey(asset), partition(RUN, STEP)) == StaleStatus.FRESH


def metadata(instance, asset):
    record = instance.get_latest_data_version_record(dg.AssetKey(asset), partition_key=partition(RUN, STEP))
    return record.event_log_entry.tags["dagster/data_version"], record.asset_materialization.metadata


def test_scores_are_numbers_of_the_event_and_predictions_its_pictures(graph):
    _, instance, _, home = graph
    _, shown = metadata(instance, "lds")
    for method, name in (("adjoint", NAME), ("gradient_dot", f"{NAME} gradient_dot")):
        stored = query(home / "store", f"select value from lds where metric = 'lds' and method = '{method}'").rows()
        assert shown[f"{name} lds at 0.1"].value == pytest.approx(stored[0][0], rel=1e-4)
        picture = shown[f"predicted_against_measured.{NAME}.{method}.png"].value
        assert picture.startswith("![predicted against measured](data:image/png;base64,")
    assert shown["retrainings"].value == 4
    assert metadata(instance, "retrainings")[1]["retrainings"].value == 7, "4 random, 2 by influence, the baseline"


def test_running_again_reports_the_same_versions_and_computes_nothing(graph):
    _, instance, executor, home = graph
    files = sorted((home / "store" / "tables").rglob("*.parquet"))
    before = [metadata(instance, asset)[0] for asset in ("retrainings", "lds")]
    executor.step_assets(["retrainings", "lds"], RUN, STEP, STEP)
    assert [metadata(instance, asset)[0] for asset in ("retrainings", "lds")] == before
    assert sorted((home / "store" / "tables").rglob("*.parquet")) == files


def test_the_report_says_how_good_the_predictions_are(graph):
    page = (graph[3] / "store" / "reports" / "tiny.html").read_text()
    _, section = page.split("How good are the predictions?</a></h2>")
    section = section[: section.index("</h2>")]
    value, lower, upper, n = query(
        graph[3] / "store", "select value, lower, upper, n from lds where metric = 'lds' and method = 'adjoint'"
    ).rows()[0]
    assert f"{value:.2f} [{lower:.2f}, {upper:.2f}] (n = {n})" in section
    assert section.count("<figure>") == 2
    assert "predicted by influence (gradient_dot) and measured" in section
    assert "standard deviations from random" in section
