"""The server deployment as real processes: Postgres, an object store, code server, webserver, daemon; two daemons die."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.registering import register
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.reading.query import query
from tests.support.deployment import deployed
from tests.support.postgres_server import postgres_programs, postgres_server
from tests.support.tiny import write_project

RUN = "tiny.baseline.s0"
_PATIENCE = 180  # seconds; reached only if something is broken

LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message stack } } }"""
RUN_STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
LAUNCH_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message stack } } }"""
BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status runs(limit: 10) { runId status } } } }"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, server):
    """Everything running, and the tiny experiment known to it."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("there is no Postgres server on this machine: apt-get install postgresql")
    home = tmp_path_factory.mktemp("deployment")
    write_project(home)
    bucket = f"deployment-{time.time_ns()}"
    with pytest.MonkeyPatch.context() as patch, postgres_server(programs) as postgres:
        with deployed(home, postgres, server, bucket) as running:
            for name, value in running.environment.items():
                patch.setenv(name, value)
            running.start("user_code")
            running.wait_for_port("user_code", 4000)
            running.wait_until_healthy("user_code")
            with dg.DagsterInstance.from_config(str(home)) as instance:
                register(instance, load_experiment(home / "experiments" / "tiny.yaml").runs())
                running.start("webserver", "daemon")
                running.wait_for_port("webserver", 3000)
                running.wait_until_healthy("webserver")
                running.wait_until_healthy("daemon")
                yield running, instance


def wait_for(look: Callable[[], Any], wanted: set[str]) -> Any:
    """What `look` finds once its status is a wanted one; a failure ends the wait."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = look()
        if found["status"] in wanted:
            return found
        assert found["status"] not in {"FAILURE", "CANCELED", "FAILED", "COMPLETED_FAILED"}, found
        time.sleep(0.3)
    raise AssertionError(f"still {look()}")


def test_a_run_launched_in_the_ui_leaves_rows_and_logs_in_the_bucket(deployment):
    running, _ = deployment
    assets = ["run_spec", "tokens", "training_run"]
    selector = {
        "repositoryLocationName": "mech",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": [name]} for name in assets],
    }
    tags = [{"key": "dagster/partition", "value": RUN}]
    params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
    launched = running.graphql(LAUNCH, params=params)
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    wait_for(lambda: running.graphql(RUN_STATUS, id=run_id), {"SUCCESS"})
    store = running.environment["MECH_STORE"]
    assert query(store, "select distinct run from checkpoints").rows() == [(RUN,)]
    logs = open_files(f"s3://{running.environment['MECH_BUCKET']}/compute-logs")
    ours = {entry.name: entry.bytes for entry in logs.entries() if run_id in entry.name}
    assert any(name.endswith(".err") and size for name, size in ours.items()), "Dagster's log of the run"


def test_a_queued_backfill_outlives_its_daemons(deployment):
    """One daemon dies before the backfill is asked for, the next while its run is queued or running."""
    running, instance = deployment
    steps = load_experiment(running.home / "experiments" / "tiny.yaml").runs()[0].checkpoint_steps()
    wanted = [str(partition(RUN, step)) for step in steps]
    running.kill("daemon")
    params = {"assetSelection": [{"path": ["mechanism_values"]}], "partitionNames": wanted}
    launched = running.graphql(LAUNCH_BACKFILL, params=params)
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def backfill() -> Any:
        return running.graphql(BACKFILL, id=launched["backfillId"])

    assert backfill()["status"] == "REQUESTED", "nobody is there to work on it"
    running.start("daemon")
    wait_for(lambda: {"status": "begun" if backfill()["runs"] else "waiting"}, {"begun"})
    running.kill("daemon")
    running.start("daemon")
    done = wait_for(backfill, {"COMPLETED_SUCCESS"})
    assert {run["status"] for run in done["runs"]} == {"SUCCESS"}
    records = instance.fetch_materializations(dg.AssetKey("mechanism_values"), limit=1000).records
    assert Counter(str(record.partition_key) for record in records) == Counter(wanted), "each once, none lost"
    rows = query(running.environment["MECH_STORE"], "select distinct step from mechanism_values order by step").rows()
    assert [step for (step,) in rows] == list(steps)
