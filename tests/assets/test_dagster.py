"""The assets as Dagster runs them: partitions, hand-logged events and their provenance, checks, stale marks."""

import shlex

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from mech_pipeline.assets.checks import MEASURED, RUN_CHECKS
from mech_pipeline.assets.description import DEFAULT_OWNER, OWNER_VARIABLE, owners
from mech_pipeline.assets.events import PartitionEvents
from mech_pipeline.assets.factory import with_unit
from mech_pipeline.assets.history import spare_flushes
from mech_pipeline.assets.launcher.execute import Executor, close_orphans
from mech_pipeline.assets.partitions import partition, run_step, runs, split_keys, step_key, steps
from mech_pipeline.assets.registering import register, register_steps
from mech_pipeline.assets.tags import LAUNCHER_TAG
from mech_pipeline.assets.training import PLOTTED
from mech_pipeline.definitions import build_definitions
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline import soundness, stage_costs
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.tables.all import TABLES
from tests.support.tiny import write_experiment, write_project

pytestmark = pytest.mark.slow

RUN = "tiny.baseline.s0"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The tiny experiment, one run of it materialized asset by asset."""
    home = tmp_path_factory.mktemp("home")
    file = write_project(home)
    definitions = build_definitions(str(home / "store"), home / "experiments")
    (home / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        specs = load_experiment(file).runs()
        register(instance, specs)
        executor = Executor(definitions, instance, launcher_pid=1)
        for asset in ("run_spec", "tokens", "training_run"):
            executor.run_assets([asset], RUN)
        executor.step_assets(["mechanism_values", "head_scores", "gradients"], RUN, 0, 24)
        executor.step_assets(["ledger"], RUN, 0, 24)
        executor.run_assets(["formation"], RUN)
        executor.step_assets(["influence", "reliability"], RUN, 12, 12)
        executor.run_assets(["experiment_report"], "tiny")
        executor.run_assets(["warehouse"], None)
        yield definitions, instance, executor, home, specs


def done(instance, asset):
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def test_definitions_load_and_every_asset_says_what_it_is(graph):
    definitions = graph[0]
    dg.Definitions.validate_loadable(definitions)
    for spec in definitions.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.group_name != "default", spec.key


def test_every_checkpoint_is_a_partition_event_with_its_own_data_version(graph):
    _, instance, _, home, specs = graph
    steps = specs[0].checkpoint_steps()
    expected = {str(partition(RUN, step)) for step in steps}
    for asset in ("checkpoint", "mechanism_values", "head_scores", "gradients"):
        assert done(instance, asset) == expected
    assert done(instance, "ledger") == expected - {str(partition(RUN, 0))}, "nothing happened before step 0"
    assert done(instance, "influence") == done(instance, "reliability") == {str(partition(RUN, 12))}
    stored = dict(query(home / "store", "select step, data_version from checkpoints").rows())
    for step in steps:
        record = instance.get_latest_data_version_record(dg.AssetKey("checkpoint"), partition_key=partition(RUN, step))
        assert record.event_log_entry.tags["dagster/data_version"] == stored[step]
        metadata = record.asset_materialization.metadata
        assert "fingerprint" in metadata
        curves = {name: metadata[name].value for name in PLOTTED.values() if step}
        assert all(value > 0 for value in curves.values()), "a number per partition becomes a curve in the UI"


def test_nothing_is_stale_right_after_it_was_made(graph):
    definitions, instance, _, _, specs = graph
    for asset in ("mechanism_values", "head_scores", "gradients", "ledger", "checkpoint"):
        assert statuses(definitions, instance, asset, specs[0].checkpoint_steps()[1:]) == {StaleStatus.FRESH}


def statuses(definitions, instance, asset, steps):
    resolver = CachingStaleStatusResolver(instance, definitions.resolve_asset_graph(), LoadingContextForTest(instance))
    return {resolver.get_status(dg.AssetKey(asset), partition(RUN, step)) for step in steps}


def test_both_ledger_checks_are_evaluated_on_every_partition(graph):
    _, instance, _, _, specs = graph
    for name in ("examples_sum_to_update", "ledger_sums_to_change"):
        key = dg.AssetCheckKey(dg.AssetKey("ledger"), name)
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        events = [record.event.dagster_event for record in records]
        evaluations = [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
        assert {str(e.partition) for e in evaluations} == {
            str(partition(RUN, step)) for step in specs[0].checkpoint_steps()[1:]
        }
        assert all(e.passed and e.blocking for e in evaluations)


def test_influence_is_judged_whenever_it_is_computed(graph):
    instance = graph[1]
    key = dg.AssetCheckKey(dg.AssetKey("influence"), "influence_is_reliable")
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    events = [record.event.dagster_event for record in records]
    found = [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    assert found
    assert found[0].severity == dg.AssetCheckSeverity.WARN
    assert found[0].metadata["targets"].value == 1


def test_the_ui_says_how_far_a_run_is_and_shows_curves_and_answer(graph):
    instance = graph[1]
    told = dg.AssetRecordsFilter(asset_key=dg.AssetKey("training_run"), asset_partitions=[RUN])
    observed = instance.fetch_observations(told, limit=1).records[0].event_log_entry.asset_observation.metadata
    assert observed["run"].value == "6 of 6 checkpoints, analysed, ledger 5 of 5"
    newest = {
        asset: instance.get_latest_materialization_event(dg.AssetKey(asset)).asset_materialization.metadata
        for asset in ("training_run", "formation", "experiment_report")
    }
    for shown in (observed, *newest.values()):
        assert "](/curves/tiny.png)" in shown["curves"].value
        assert len(shown["curves"].value) < 1000, "longer texts are shown after a click only"
    report = newest["experiment_report"]
    assert list(report)[:3] == ["answer", "report", "curves"]
    assert report["answer"].value.startswith("Formation here means")
    assert "(/reports/tiny.html)" in report["report"].value
    rows = {row.data["run"]: row.data["has"] for row in report["runs"].records}
    assert rows[RUN].startswith("6 of 6 checkpoints, analysed, ledger 5 of 5")
    assert rows["tiny.control.s0"].startswith("0 of ")
    assert newest["training_run"]["loss at the end (nats)"].value > 0


def test_numbers_have_few_digits_and_say_their_unit(graph):
    instance = graph[1]
    for asset in ("checkpoint", "mechanism_values", "head_scores", "ledger", "influence", "reliability", "formation"):
        shown = instance.get_latest_materialization_event(dg.AssetKey(asset)).asset_materialization.metadata
        for label, value in shown.items():
            if isinstance(value, dg.FloatMetadataValue):
                assert value.value == float(f"{value.value:.5g}"), (asset, label)
    labels = instance.get_latest_materialization_event(dg.AssetKey("mechanism_values")).asset_materialization.metadata
    assert "induction_copy_advantage (nats)" in labels
    assert with_unit("edges that carry 80 % of induction_copy_advantage").endswith("advantage")


def test_running_again_reports_the_same_versions_and_computes_nothing(graph):
    _, instance, executor, home, _ = graph

    def version():
        return query(
            home / "store", "select string_agg(data_version, ',' order by step, detector) from head_scores"
        ).rows()

    def tags():
        record = instance.get_latest_data_version_record(dg.AssetKey("head_scores"), partition_key=partition(RUN, 6))
        return record.event_log_entry.tags["dagster/data_version"], record.storage_id

    files = sorted((home / "store" / "tables").rglob("*.parquet"))
    before, (data_version, storage_id) = version(), tags()
    executor.step_assets(["mechanism_values", "head_scores", "gradients"], RUN, 0, 24)
    executor.run_assets(["training_run"], RUN)
    assert version() == before
    assert tags()[0] == data_version
    assert tags()[1] > storage_id, "the partition was reported again"
    assert sorted((home / "store" / "tables").rglob("*.parquet")) == files


def test_rows_of_one_commit_are_reported_together_and_before_the_body_goes_on(tmp_path, monkeypatch):
    """One call of the storage for all of them; the block's end is the moment from which they are kept."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    keys, seen = [str(partition("r", step)) for step in range(5)], []

    @dg.asset(partitions_def=run_step, output_required=False)
    def reported(context: dg.AssetExecutionContext):
        events = PartitionEvents(context, "reported", "7", {}, context.partition_keys)
        with pytest.raises(ValueError, match="half-way"), events.together():
            for key in context.partition_keys[:3]:
                events.report(key, f"v{key}", {})
            seen.append(done(context.instance, "reported"))
            raise ValueError("half-way")
        seen.append(done(context.instance, "reported"))
        for key in context.partition_keys[3:]:
            events.report(key, f"v{key}", {})
        seen.append(done(context.instance, "reported"))
        return
        yield

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions(runs.name, ["r"])
        register_steps(instance, range(5))
        batches = []
        store_batch = instance.event_log_storage.store_event_batch
        monkeypatch.setattr(
            instance.event_log_storage,
            "store_event_batch",
            lambda events: batches.append(events) or store_batch(events),
        )
        Executor(dg.Definitions([reported], executor=dg.in_process_executor), instance, 1).step_assets(
            ["reported"], "r", 0, 4
        )
        assert seen == [set(), set(keys[:3]), set(keys)]
        written = [[event.dagster_event for event in events] for events in batches]
        written = [[event.partition for event in events if event.is_step_materialization] for events in written]
        assert [batch for batch in written if batch] == [keys[:3]]
        tags = [instance.get_latest_data_version_record(dg.AssetKey("reported"), partition_key=key) for key in keys]
        assert [record.event_log_entry.tags["dagster/data_version"] for record in tags] == [f"v{key}" for key in keys]


def test_events_that_die_with_their_process_are_reported_by_the_next_materialization(graph, monkeypatch):
    """The store has the rows; Dagster learns of them late, and nothing is computed again."""
    _, instance, executor, home, specs = graph
    run = specs[-1].run  # not the second seed: another test needs it unknown
    for asset in ("run_spec", "tokens", "training_run"):
        executor.run_assets([asset], run)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartitionEvents, "_write", dies)
        with pytest.raises(KeyboardInterrupt):
            executor.step_assets(["mechanism_values"], run, 0, 24)
    values = "select count(*), min(data_version), max(data_version) from mechanism_values where run = '" + run + "'"
    kept = query(home / "store", values).rows()
    assert kept[0][0] > 0, "the rows were stored before the events were lost"
    assert not {key for key in done(instance, "mechanism_values") if key.startswith(run)}
    executor.step_assets(["mechanism_values"], run, 0, 24)
    expected = {str(partition(run, step)) for step in specs[-1].checkpoint_steps()}
    assert {key for key in done(instance, "mechanism_values") if key.startswith(run)} == expected
    assert query(home / "store", values).rows() == kept, "nothing was computed again"


def test_a_changed_checkpoint_makes_exactly_its_descendants_stale(graph):
    definitions, instance, _, _, _ = graph
    instance.report_runless_asset_event(
        dg.AssetMaterialization("checkpoint", partition=partition(RUN, 18), tags={"dagster/data_version": "changed"})
    )
    assert statuses(definitions, instance, "mechanism_values", [18]) == {StaleStatus.STALE}
    assert statuses(definitions, instance, "mechanism_values", [0, 3, 6, 12, 24]) == {StaleStatus.FRESH}


def test_a_person_who_asks_for_what_is_in_no_plan_is_told_so_and_the_rest_is_made(graph):
    """A backfill succeeds only if every one of its partitions is reported."""
    definitions, instance, *_ = graph
    register_steps(instance, [4])
    ends = {f"dagster/asset_partition_range_{end}": partition(RUN, step) for end, step in (("start", 3), ("end", 6))}
    job = definitions.resolve_implicit_global_asset_job_def()
    for name in ("checkpoint", "mechanism_values"):
        before = done(instance, name)
        assert job.execute_in_process(asset_selection=[dg.AssetKey(name)], tags=ends, instance=instance).success
        assert done(instance, name) == before | {str(partition(RUN, 4))}
        newest = instance.get_latest_data_version_record(dg.AssetKey(name), partition_key=partition(RUN, 4))
        assert "at this step" in newest.asset_materialization.metadata["skipped"].value
    executor = graph[2]
    executor.step_assets(["head_scores"], RUN, 3, 6)
    assert str(partition(RUN, 4)) not in done(instance, "head_scores"), "a launcher's range means what is planned in it"


def test_mistakes_reach_the_caller_as_they_are(graph):
    executor = graph[2]
    graph[1].add_dynamic_partitions(runs.name, ["other.baseline.s0", "tiny.none.s0"])
    with pytest.raises(MechError, match="describes experiment 'other'"):
        executor.run_assets(["run_spec"], "other.baseline.s0")
    with pytest.raises(
        MechError, match=r"experiment 'tiny' has no run 'tiny\.none\.s0' → its runs are tiny\.baseline\.s0"
    ):
        executor.run_assets(["run_spec"], "tiny.none.s0")
    with pytest.raises(MechError, match="run tiny.baseline.s1 is unknown to the store"):
        executor.run_assets(["tokens"], "tiny.baseline.s1")


def test_the_report_and_the_warehouse_are_where_they_say(graph):
    home = graph[3]
    page = (home / "store" / "reports" / "tiny.html").read_text()
    assert "Does everything work?" in page
    assert (home / "store" / "warehouse.duckdb").is_file()


def test_steps_stay_sorted_when_a_denser_grid_comes_later(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        grids = [{"every": 10}, {"every": 3}]
        for grid in grids:
            file = write_experiment(tmp_path / "tiny.yaml", checkpoints=grid)
            register(instance, load_experiment(file).runs())
        keys = list(instance.get_dynamic_partitions(steps.name))
        assert keys == sorted(keys)
        assert {step_key(20), step_key(3)} <= set(keys)
        assert split_keys([partition("r", 7), partition("r", 3)]) == ("r", [3, 7])


def test_runs_of_a_dead_launcher_are_closed(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        @dg.job
        def nothing():
            pass

        dead = instance.create_run_for_job(
            nothing, tags={LAUNCHER_TAG: "999999999"}, status=dg.DagsterRunStatus.STARTED
        )
        foreign = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        assert close_orphans(instance) == 1
        assert instance.get_run_by_id(dead.run_id).status == dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(foreign.run_id).status == dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("check", RUN_CHECKS, ids=lambda check: f"{check.asset} {check.name}")
def test_a_run_is_checked_when_it_was_trained_and_measured(graph, check):
    _, instance, *_ = graph
    key = dg.AssetCheckKey(dg.AssetKey(check.asset), check.name)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    made = [record.event.dagster_event.asset_check_evaluation_data for record in records]
    assert {(str(evaluation.partition), evaluation.passed) for evaluation in made} >= {(RUN, True)}


def test_a_run_can_be_checked_again_by_hand(graph):
    definitions, instance, *_ = graph
    done = definitions.resolve_job_def("check_run").execute_in_process(instance=instance, partition_key=RUN)
    assert done.success
    events = [e.asset_check_evaluation_data for e in done.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    assert [(e.asset_key.to_user_string(), e.check_name) for e in events] == [(c.asset, c.name) for c in RUN_CHECKS]
    assert all(e.passed and str(e.partition) == RUN for e in events)
    for check in RUN_CHECKS:
        key = dg.AssetCheckKey(dg.AssetKey(check.asset), check.name)
        newest = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
        assert newest.run_id == done.run_id


def test_numbers_of_all_runs_are_checked_by_hand(graph):
    definitions, instance, *_ = graph
    keys = {dg.AssetCheckKey(dg.AssetKey(table), "numbers_are_finite") for table in (*MEASURED, "influence")}
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_check_selection=keys, asset_selection=set()
    )
    made = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert {evaluation.asset_check_key for evaluation in made} == keys
    assert all(evaluation.passed for evaluation in made)


def test_every_asset_has_an_owner_and_says_which_columns_it_fills(graph, monkeypatch):
    definitions, *_ = graph
    filled = []
    for spec in definitions.resolve_all_asset_specs():
        assert spec.owners == [DEFAULT_OWNER]
        outputs = [o for stage in STAGES for o in stage.outputs if o.name == spec.key.to_user_string()]
        for output in outputs:
            filled.extend(output.tables)
        if outputs and outputs[0].table is not None:
            table = TABLES[outputs[0].table]
            shown = spec.metadata["dagster/column_schema"]
            assert [column.name for column in shown.columns] == [column.name for column in table.all_columns]
    assert sorted([*filled, stage_costs.TABLE]) == sorted(TABLES), (
        "every other table of the store is filled by one asset"
    )
    monkeypatch.setenv(OWNER_VARIABLE, "ada@example.org, team:interpretability")
    assert owners() == ["ada@example.org", "team:interpretability"]
    monkeypatch.setenv(OWNER_VARIABLE, "ada")
    with pytest.raises(MechError, match="team:name"):
        owners()


def test_every_query_that_the_ui_shows_finds_the_rows_of_its_partition(graph):
    _, instance, _, home, specs = graph
    tables = {
        "runs": "run_spec",
        "tokens": "tokens",
        "training_metrics": "training_run",
        "checkpoints": "checkpoint",
        "formation": "formation",
    }
    tables |= {
        name: name for name in ("mechanism_values", "head_scores", "gradients", "ledger", "influence", "reliability")
    }
    shown_rows = ("tokens", "training_metrics", "formation", "ledger", "influence", "reliability")
    for table, asset in tables.items():
        step = 12 if table in ("influence", "reliability") else specs[0].checkpoint_steps()[-1]
        whole = table in ("runs", "tokens", "training_metrics", "formation")
        key = RUN if whole else partition(RUN, step)
        record = instance.get_latest_data_version_record(dg.AssetKey(asset), partition_key=key)
        metadata = record.asset_materialization.metadata
        program, command, sql = shlex.split(metadata["SQL"].value)
        assert (program, command) == ("mech", "sql")
        found = query(home / "store", sql)
        assert len(found), table
        assert ("first rows" in metadata) == (table in shown_rows)
        if table in shown_rows:
            shown = metadata["first rows"].records[0].data
            assert set(shown) == set(found.columns) - (set() if whole else {"step"}), table


def test_events_do_not_wait_for_the_disk_and_the_database_stays_in_wal(tmp_path):
    """`synchronous = normal` keeps a database whole only in WAL mode."""
    spare_flushes()
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        for connected in (instance.event_log_storage.index_connection(), instance.run_storage.connect()):
            with connected as connection:
                assert connection.exec_driver_sql("pragma synchronous").scalar() == 1, "normal"
                assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def test_a_check_fails_where_what_it_looks_at_is_wrong(graph, monkeypatch):
    definitions, instance, *_ = graph
    monkeypatch.setattr(soundness, "not_finite", lambda run: soundness.NotFinite((3,), (), 6))
    monkeypatch.setattr(soundness, "resume", lambda run: soundness.Resumed(0, 3, "reached", "kept"))
    monkeypatch.setattr(soundness, "batch_dependence", lambda run: float("nan"))
    monkeypatch.setattr(soundness, "cells_not_finite", lambda store, table, run=None: [(RUN, 3)])
    done = definitions.resolve_job_def("check_run").execute_in_process(instance=instance, partition_key=RUN)
    events = [e.asset_check_evaluation_data for e in done.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    assert [evaluation.passed for evaluation in events] == [False] * len(RUN_CHECKS)
    assert "3" in events[0].metadata["states with NaN"].value
