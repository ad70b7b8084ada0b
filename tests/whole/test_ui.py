"""A person in a browser: sees the lineage, launches an experiment, watches it finish, looks at the curves.

Pictures are kept in the folder that MECH_SCREENSHOTS names, if it is set.
"""

import os
import re
import signal
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mech_pipeline.assets.partitions import partition
from mech_pipeline.store.reading.query import query
from tests.support.live import CHROMIUM, asked, user_interface, wait_for
from tests.support.tiny import write_project

TINY, RUN = "tiny", "tiny.baseline.s0"
NEVER_LAUNCHED = "aside"
LOCATION = "mech_pipeline.definitions"
_SECONDS = 1000.0
IN_FLIGHT = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
KILLED: list[str] = []
"""Dagster runs whose process these tests kill."""
DRAWN = "[...document.images].some(image => image.src.endsWith('/curves/tiny.png') && image.naturalWidth > 0)"
SQUARES = "{assetNodes {assetKey {path} partitionStats {numMaterialized numPartitions numFailed}}}"
SENSORS = """{sensorsOrError(repositorySelector: {repositoryName: "__repository__",
repositoryLocationName: "mech_pipeline.definitions"}) {... on Sensors {results {name sensorState {ticks {status}}}}}}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project with a run that takes long enough to be watched, and killed, and an experiment that nobody launches."""
    folder = tmp_path_factory.mktemp("project")
    long = {"training": {"steps": 9600, "batch": 8}, "checkpoints": {"every": 400}, "ledger": {"mechanisms": []}}
    long |= {"influence": {"mechanisms": []}, "seeds": [0], "arms": {"baseline": {}}}
    file = write_project(folder, **long)
    other = yaml.safe_load(file.read_text()) | {"experiment": NEVER_LAUNCHED, "checkpoints": {"every": 500}}
    (folder / "experiments" / f"{NEVER_LAUNCHED}.yaml").write_text(yaml.safe_dump(other))
    return folder


@pytest.fixture(scope="module")
def address(home):
    with user_interface(home) as found:
        yield found


@pytest.fixture(scope="module")
def instance(home, address):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)  # dagster.yaml names its folder relative to where Dagster runs
        with dg.DagsterInstance.from_config(str(home)) as found:
            yield found


@pytest.fixture(scope="module")
def page(address):
    """A page of Debian's chromium; it must ask no other host for anything."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    asked: set[str] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1500, "height": 950})
        opened.set_default_timeout(60 * _SECONDS)
        opened.on("request", lambda request: asked.add(request.url))
        yield opened
        browser.close()
    strangers = {url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))}
    assert not strangers, "the UI asked another host"


def keep(page, name):
    if folder := os.environ.get("MECH_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_the_lineage_is_there(page, address):
    page.goto(f"{address}/locations/{LOCATION}/asset-groups/training/lineage")
    for asset in ("training_run", "checkpoint", "ledger"):  # Dagster draws what the window shows
        page.get_by_text(asset, exact=True).first.wait_for()
    keep(page, "lineage")


def test_a_dropped_file_shows_what_it_would_cost(page, address, instance):
    key = dg.AssetKey("experiment_plan")
    wait_for(lambda: TINY in instance.get_materialized_partitions(key), "the sensor has read the file")
    page.goto(f"{address}/assets/experiment_plan?partition=tiny&view=partitions")
    page.get_by_text("training compute (FLOP)").first.wait_for()
    keep(page, "plan")


def test_an_experiment_is_launched_watched_and_survives_a_kill(page, address, instance, home):
    """What computes is killed with signal 9 in the middle: it goes on from the last checkpoint by itself."""
    page.goto(f"{address}/locations/{LOCATION}/jobs/launch_experiment/playground")
    editor = page.locator(".CodeMirror").first
    editor.get_by_text(NEVER_LAUNCHED).first.wait_for()  # filled in: the file that was written last
    keep(page, "launchpad")
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("ops: {ask_for_runs: {config: {experiment: tiny, arms: [baseline], seeds: [0]}}}")
    page.get_by_role("button", name="Launch Run").click()

    key, checkpoint = dg.AssetKey("training_run"), dg.AssetKey("checkpoint")
    wait_for(lambda: len(instance.get_materialized_partitions(checkpoint)) >= 3, "checkpoints appear")
    page.goto(f"{address}/assets/training_run?view=events")
    wait_for(lambda: page.evaluate(DRAWN), "the curves are drawn while it trains")
    keep(page, "live")
    (launch,) = launches(instance, dg.DagsterRunStatus.STARTED)
    KILLED.extend(run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))
    kill_worker(instance, launch.run_id)
    assert instance.get_latest_materialization_event(key) is None, "killed before its end"
    page.goto(f"{address}/runs")
    keep(page, "runs")
    wait_for(lambda: RUN in instance.get_materialized_partitions(key), "training ends after all")
    (again,) = wait_for(lambda: launches(instance, dg.DagsterRunStatus.SUCCESS), "everything is done")
    assert again.parent_run_id == launch.run_id
    steps = query(home / "store", "select step from checkpoints order by step")["step"].to_list()
    assert steps == list(range(0, 9601, 400))
    assert len(instance.get_materialized_partitions(dg.AssetKey("mechanism_values"))) == 25
    slots = instance.event_log_storage.get_concurrency_info("gpu_train")
    assert slots.active_slot_count == 0, "a killed worker leaves its slot"


def launches(instance, status):
    return instance.get_runs(dg.RunsFilter(job_name="launch_experiment", statuses=[status]))


def kill_worker(instance, run_id):
    """The process that executes a run, as its own log names it."""
    said = [re.search(r"pid: (\d+)", record.message) for record in instance.all_logs(run_id)]
    os.kill(next(int(found[1]) for found in said if found), signal.SIGKILL)


def test_the_run_was_checked_and_says_so(page, address):
    page.goto(f"{address}/assets/training_run?view=checks")
    for check in ("numbers_are_finite", "resumes_bit_for_bit", "same_in_any_batch"):
        page.get_by_text(check, exact=True).first.wait_for()
    page.get_by_text("Passed", exact=True).first.wait_for()
    keep(page, "checks")


def test_a_partition_shows_its_rows_and_how_to_find_them(page, address, instance):
    wait_for(lambda: RUN in instance.get_materialized_partitions(dg.AssetKey("formation")), "formation")
    page.goto(f"{address}/assets/formation?view=partitions&partition={RUN}")
    page.get_by_text("mech sql", exact=False).first.wait_for()
    page.get_by_text("first rows", exact=True).first.wait_for()
    keep(page, "rows")


def test_the_curves_are_drawn(page, address):
    page.goto(f"{address}/assets/mechanism_values?view=overview")
    page.get_by_text("Plots", exact=True).first.click()
    page.locator("canvas").first.wait_for()
    page.wait_for_timeout(1 * _SECONDS)
    keep(page, "plots")


def test_a_backfill_of_what_is_missing_leaves_the_rest_alone(page, address, instance):
    """All but two partitions are forgotten by Dagster, not by the store: the dialog's option makes those and no others."""
    key, kept = dg.AssetKey("head_scores"), [partition(RUN, step) for step in (400, 4000)]
    whole = set(instance.get_materialized_partitions(key))
    instance.wipe_assets([key])
    for each in kept:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=each))
    page.goto(f"{address}/assets/head_scores?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    everything = dialog.get_by_text("All", exact=True)
    for dimension in (0, 1):
        everything.nth(dimension).click()
    dialog.get_by_text("Backfill only failed and missing").click()
    dialog.get_by_text(f"Only {len(whole) - len(kept)} failed and missing").first.wait_for()
    keep(page, "backfill")
    dialog.get_by_role("button", name="Launch").click()
    wait_for(lambda: set(instance.get_materialized_partitions(key)) == whole, "what was missing is there")
    newest = [instance.get_latest_data_version_record(key, partition_key=each) for each in kept]
    assert [record.event_log_entry.run_id for record in newest] == [""] * len(kept), "they have no run"
    ranges = [
        (run.tags["dagster/asset_partition_range_start"], run.tags["dagster/asset_partition_range_end"])
        for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": instance.get_backfills()[0].backfill_id}))
    ]
    assert sorted(ranges) == [
        (str(partition(RUN, first)), str(partition(RUN, last))) for first, last in ((0, 0), (800, 3600), (4400, 9600))
    ]


def test_nothing_is_red_and_nothing_is_missing(page, address, instance, home):
    """After all of the above, with an experiment beside it that nobody launched; red is only the worker that was killed here."""
    wait_for(lambda: TINY in instance.get_materialized_partitions(dg.AssetKey("experiment_report")), "the report")
    wait_for(lambda: not instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT)), "nothing is running")
    said = asked(address, SQUARES)["assetNodes"]
    squares = {node["assetKey"]["path"][0]: node["partitionStats"] for node in said if node["partitionStats"]}
    assert squares["training_run"]["numPartitions"] == 1
    assert squares["mechanism_values"]["numPartitions"] == 25
    assert squares["experiment_plan"]["numPartitions"] == 2
    for asset, count in squares.items():
        assert count["numFailed"] == 0, asset
        assert count["numMaterialized"] == count["numPartitions"], asset
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert {run.run_id for run in failed} == {*KILLED}
    wait_for(lambda: "REQUESTED" not in backfilled(instance), "the daemon has seen that the backfill is done")
    assert backfilled(instance) == {"COMPLETED_SUCCESS"}
    for sensor in asked(address, SENSORS)["sensorsOrError"]["results"]:
        ticks = [tick["status"] for tick in sensor["sensorState"]["ticks"]]
        assert "FAILURE" not in ticks, sensor["name"]
    page.goto(f"{address}/assets/training_run?view=partitions&partition={RUN}")
    page.get_by_text("25 of 25 checkpoints, analysed").first.wait_for()
    wait_for(lambda: page.evaluate(DRAWN), "the curves are drawn")
    keep(page, "standing")
    page.goto(f"{address}/assets/experiment_report?view=partitions&partition={TINY}")
    page.get_by_text("Formation here means").first.wait_for()
    wait_for(lambda: page.evaluate(DRAWN), "the curves are drawn")
    keep(page, "report")
    with page.context.expect_page() as opened:
        page.get_by_text("open the report").first.click(modifiers=["Control"])
    opened.value.get_by_text("When?").first.wait_for()
    assert opened.value.url == f"{address}/reports/{TINY}.html"
    page.goto(f"{address}/locations/{LOCATION}/asset-groups/analysis/lineage")
    page.get_by_text("25 partitions").first.wait_for()
    assert not page.get_by_text(re.compile(r"\b(missing|failed)\b", re.I)).count()
    keep(page, "grid")
    page.goto(f"{address}/automation")
    page.get_by_text("experiment_files", exact=True).first.wait_for()
    keep(page, "sensors")


def backfilled(instance):
    return {each.status.value for each in instance.get_backfills()}
