"""Dagster starts exactly what is needed: through real ticks of its daemons, on the tiny experiment."""

import datetime
import shutil
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from dagster._core.test_utils import create_run_for_test

from mech_pipeline.assets.orchestration import known, sensors
from mech_pipeline.assets.orchestration.waiting import Board, known_sha256
from mech_pipeline.assets.partitions import experiments, partition, plans, runs, steps
from mech_pipeline.assets.tags import BY_TAG, NIGHTLY, RUN_TAG, STAGE_TAG
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.work import stored_specs, work_of
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.checkpoints import pack_state, state_sha256
from mech_pipeline.training.update.optimizer import State
from tests.support.daemon import daemon
from tests.support.tiny import write_experiment, write_project

# A run that is started inside the daemon's event loop, as these are, leaves Dagster's inner loop behind unawaited.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .BaseEventLoop:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
RUN = "tiny.baseline.s0"
ONE_RUN = {"seeds": [0], "arms": {"baseline": {}}}


@pytest.fixture
def home(tmp_path):
    write_project(tmp_path, **ONE_RUN)
    return tmp_path


@pytest.fixture
def daemons(home, monkeypatch):
    with daemon(home, monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project in which the experiment was launched and everything is done, with a copy beside it.

    Its clock, and what was started: jobs with how they ended.
    """
    home = tmp_path_factory.mktemp("done") / "home"
    home.mkdir()
    write_project(home, **ONE_RUN)
    with pytest.MonkeyPatch.context() as patch, daemon(home, patch) as daemons:
        daemons.tick()
        assert daemons.launch()
        started = [(run.job_name, run.status) for run in daemons.until_quiet()]
        minutes = daemons.minutes
    shutil.copytree(home, home.with_name("copy"))
    return home, minutes, started


@pytest.fixture
def trained(done, monkeypatch):
    """The same daemons over the same project, as it was when everything was done."""
    home, minutes, _ = done
    shutil.rmtree(home)
    shutil.copytree(home.with_name("copy"), home)
    with daemon(home, monkeypatch, minutes=minutes) as made:
        yield made


def jobs(runs):
    return [run.job_name for run in runs]


def materialized(instance, asset):
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def events(instance, asset):
    return instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records


def test_a_file_that_is_dropped_in_has_its_cost_shown_and_nothing_else(daemons, home):
    assert jobs(daemons.tick()) == ["experiment_plan_job"]
    assert daemons.instance.get_dynamic_partitions(plans.name) == ["tiny"]
    for name in (runs.name, steps.name, experiments.name):
        assert daemons.instance.get_dynamic_partitions(name) == [], "nobody launched it"
    shown = daemons.instance.get_latest_materialization_event(dg.AssetKey("experiment_plan")).asset_materialization
    assert shown.metadata["runs"].value == 1
    assert shown.metadata["training updates"].value == 24
    assert shown.metadata["training tokens"].value == str(24 * 8 * 16)
    for part in ("training", "ledger", "analysis and the rest", "all"):
        assert shown.metadata[f"{part}, one run after another"].value.endswith("s")
    assert shown.metadata["not counted"].value == "nothing"
    assert daemons.tick() == [], "the same files again"
    assert "nothing was launched" in daemons.said("work"), "reading trains nothing"

    (home / "experiments" / "broken.yaml").write_text("experiment: broken\nlayers: 3\n")
    write_experiment(home / "experiments" / "tiny.yaml", corpus={"files": str(home / "text/*.txt")}, seeds=[0, 1])
    ended = {run.tags["dagster/partition"]: run for run in daemons.tick()}
    assert {key: run.status.value for key, run in ended.items()} == {"tiny": "SUCCESS", "broken": "FAILURE"}
    said = [str(record.message) for record in daemons.instance.all_logs(ended["broken"].run_id)]
    assert any("failed" in line for line in said)
    causes = [
        record.dagster_event.step_failure_data.error.to_string()
        for record in daemons.instance.all_logs(ended["broken"].run_id)
        if record.dagster_event and record.dagster_event.is_step_failure
    ]
    assert "unknown field 'layers'" in causes[0]
    (home / "experiments" / "tiny.yaml").unlink()
    (home / "experiments" / "broken.yaml").unlink()
    assert daemons.tick() == []
    assert daemons.instance.get_dynamic_partitions(plans.name) == []


def test_one_launch_makes_everything_and_then_nothing_more(done, trained):
    started = done[-1]
    assert {status for _, status in started} == {dg.DagsterRunStatus.SUCCESS}
    names = [name for name, _ in started]
    assert names[0] == "training_stage"
    assert names[-1] == "report_stage", "once everything else is there"
    assert set(names[:-1]) == {"training_stage", "analysis_stage", "ledger_stage", "formation_stage"}
    for asset in ("checkpoint", "mechanism_values", "head_scores", "gradients"):
        assert len(materialized(trained.instance, asset)) == 6
    assert materialized(trained.instance, "run_spec") == materialized(trained.instance, "tokens") == {RUN}
    assert trained.said("work") == "everything launched is current"
    assert materialized(trained.instance, "experiment_report") == {"tiny"}
    assert trained.instance.get_latest_materialization_event(dg.AssetKey("warehouse"))
    assert trained.tick() == []
    check_that_nothing_is_missing(trained)


def check_that_nothing_is_missing(daemons):
    """The grid is the plan: what has partitions has them all."""
    graph = daemons.definitions().resolve_asset_graph()
    with dg.partition_loading_context(dynamic_partitions_store=daemons.instance):
        for key in graph.materializable_asset_keys:
            if (defined := graph.get(key).partitions_def) is not None:
                keys = {*map(str, defined.get_partition_keys())}
                assert keys == materialized(daemons.instance, key.to_user_string()), key


def test_a_launched_run_that_is_current_is_looked_at_again_only_after_a_change(trained, monkeypatch):
    looked = []
    real = sensors.look
    monkeypatch.setattr(sensors, "look", lambda board, store, specs: looked.append(1) or real(board, store, specs))
    assert trained.tick() == []
    looked.clear()
    assert trained.tick() == []
    assert looked == []
    assert trained.said("work") == "everything launched is current"
    Store(trained.home / "store").delete("head_scores", f"run = '{RUN}' and step = 6")
    assert jobs(trained.tick()) == ["analysis_stage"]
    trained.until_quiet()
    looked.clear()
    monkeypatch.setitem(DETECTORS, "prefix_matching", replace(DETECTORS["prefix_matching"], version="next"))
    assert jobs(trained.tick()) == ["analysis_stage"], "new code"
    assert looked


def test_a_checkpoint_file_that_vanished_is_noticed_once_a_while_has_passed(trained, monkeypatch):
    assert trained.tick() == []
    (uri,) = query(trained.home / "store", "select uri from checkpoints where step = 24").row(0)
    (trained.home / "store" / uri).unlink()
    monkeypatch.setattr(known, "FORGOTTEN_AFTER", 0.0)
    assert jobs(trained.tick())[0] == "training_stage"


def test_only_the_arms_and_seeds_that_are_asked_for_are_launched(home, monkeypatch):
    text = {"files": str(home / "text/*.txt")}
    write_experiment(home / "experiments" / "tiny.yaml", corpus=text)
    with daemon(home, monkeypatch) as daemons:
        assert daemons.launch(arms=["baseline"], seeds=[1])
        assert daemons.instance.get_dynamic_partitions("launched") == ["tiny.baseline.s1"]
        assert not daemons.launch(arms=["nothing"])
        assert not daemons.launch(arms=["control"], seeds=[1])
        assert daemons.launch("withdraw_experiment", seeds=[1])
        assert daemons.instance.get_dynamic_partitions("launched") == []
        daemons.tick()
        assert "nothing was launched" in daemons.said("work")


def test_a_bumped_detector_recomputes_that_detector_and_nothing_that_did_not_change(trained, monkeypatch):
    """Its scores stay the same, so what reads them stays as it is: no formation, no report."""
    before = dict(
        query(trained.home / "store", "select detector, min(input_fingerprint) from head_scores group by 1").rows()
    )
    values = len(events(trained.instance, "mechanism_values"))
    bumped = replace(DETECTORS["prefix_matching"], version="next")
    monkeypatch.setitem(DETECTORS, "prefix_matching", bumped)
    assert jobs(trained.until_quiet()) == ["analysis_stage"]
    after = dict(
        query(trained.home / "store", "select detector, min(input_fingerprint) from head_scores group by 1").rows()
    )
    assert {name for name in after if after[name] != before[name]} == {"prefix_matching"}
    versions = {
        e.asset_materialization.tags["dagster/data_version"] for e in events(trained.instance, "mechanism_values")
    }
    assert len(versions) == values == 6, "reported again at most with the same version"


def test_a_changed_checkpoint_recomputes_exactly_what_descends_from_it(home, monkeypatch):
    """Its analysis alone, formation, and the report; without a ledger, which would not accept a state that is no replay."""
    text = {"files": str(home / "text/*.txt")}
    alone = {"ledger": {"mechanisms": []}, "influence": {"mechanisms": []}, **ONE_RUN}
    write_experiment(home / "experiments" / "tiny.yaml", corpus=text, **alone)
    with daemon(home, monkeypatch) as daemons:
        assert daemons.launch()
        daemons.until_quiet()
        versions = query(home / "store", "select step, data_version from checkpoints").rows()
        values = "select distinct step, data_version from mechanism_values"
        before = set(query(home / "store", values).rows())
        change_checkpoint(Store(home / "store"), 12)
        started = daemons.until_quiet()
        assert jobs(started) == ["analysis_stage", "formation_stage", "report_stage"]
        ends = {started[0].tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end")}
        assert ends == {str(partition(RUN, 12))}
        after = set(query(home / "store", values).rows())
        assert {step for step, _ in before ^ after} == {12}
        assert len(versions) == 6
        assert daemons.tick() == []


def change_checkpoint(store, step):
    """The state of a step with weights moved a little, as if somebody had imported it."""
    (spec,) = stored_specs(store, [RUN])
    run = OpenRun(store, spec)
    old = run.state(step)
    state = State(step, old.theta + 0.01, old.m, old.v)
    blob = store.put_blob(f"checkpoints/run={RUN}/changed", "state.safetensors", pack_state(state, run.trainer.flat))
    row = query(store.root, f"select * from checkpoints where step = {step}").to_dict(as_series=False)
    row |= {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256], "data_version": [state_sha256(state)]}
    store.write("checkpoints", row, replace={"run": [RUN], "step": [step]})


def test_a_batch_that_fails_half_way_keeps_what_it_finished_and_is_tried_after_a_launch(daemons, monkeypatch):
    compute = ledger.compute_ledger

    def fails(run, steps, *others):
        compute(run, [step for step in steps if step <= 9], *others)
        raise RuntimeError("the GPU fell over")

    monkeypatch.setattr(ledger, "compute_ledger", fails)
    assert daemons.launch()
    daemons.until_quiet()
    assert "ledger of tiny.baseline.s0: failed" in daemons.said("work")
    assert len(materialized(daemons.instance, "ledger")) == 2, "windows up to 3 and 6"
    monkeypatch.setattr(ledger, "compute_ledger", compute)
    assert daemons.tick() == [], "the mistake may still be there"
    assert daemons.launch()
    assert "ledger_stage" in jobs(daemons.until_quiet())
    assert len(materialized(daemons.instance, "ledger")) == 5


def test_the_night_makes_up_what_is_missing_once_and_not_while_it_is_busy(trained, monkeypatch):
    trained.turn_on("nightly")
    evening = datetime.datetime.now(datetime.UTC).replace(hour=3, minute=0) + datetime.timedelta(days=1)
    assert trained.night(evening) == [], "everything is current"
    assert trained.launch("withdraw_experiment")
    bumped = replace(DETECTORS["previous_token"], version="next")
    monkeypatch.setitem(DETECTORS, "previous_token", bumped)
    busy = trained.instance.create_run_for_job(
        trained.definitions().resolve_job_def("check_run"),
        status=dg.DagsterRunStatus.STARTED,
        tags={BY_TAG: NIGHTLY},
    )
    day = datetime.timedelta(days=1)
    assert trained.night(evening + day) == []
    trained.instance.report_run_canceled(busy)
    started = trained.night(evening + 2 * day)
    assert [run.tags[BY_TAG] for run in started] == [NIGHTLY]
    assert started[0].status == dg.DagsterRunStatus.SUCCESS
    assert started[0].tags["mech/stage"] == "analysis"
    assert trained.night(evening + 3 * day) == []


def test_analysis_begins_while_training_goes_on(daemons, monkeypatch):
    store, known = Store(daemons.home / "store"), []
    train = training.train

    def watched(opened, spec, on_checkpoint, *others):
        def seen(saved):
            on_checkpoint(saved)
            (stored,) = stored_specs(store, [RUN])
            sha256 = known_sha256(spec.corpus.model_dump_json())
            known.append({work.stage: work.steps for work in work_of(store, stored, sha256)})

        return train(opened, spec, seen, *others)

    monkeypatch.setattr(training, "train", watched)
    assert daemons.launch()
    daemons.tick()
    during = [each for each in known if "training" in each and each.get("analysis")]
    assert during, "checkpoints wait for analysis before the last one is there"


def test_formation_of_more_than_a_hundred_checkpoints_follows_a_change(home, monkeypatch):
    """Dagster's own stale marks stop at 100 upstream partitions; the store's fingerprints do not."""
    many = {"checkpoints": {"every": 1}, "training": {"steps": 104, "batch": 8}, "ledger": {"mechanisms": []}}
    text = {"files": str(home / "text/*.txt")}
    many |= {"influence": {"mechanisms": []}, "gradients": [], **ONE_RUN}
    write_experiment(home / "experiments" / "tiny.yaml", corpus=text, **many)
    with daemon(home, monkeypatch) as daemons:
        assert daemons.launch()
        started = daemons.until_quiet()
        assert jobs(started).count("analysis_stage") == 2, "64 and 41 checkpoints"
        shifted = replace(DETECTORS["prefix_matching"], score=lambda *given: DETECTORS["previous_token"].score(*given))
        monkeypatch.setitem(DETECTORS, "prefix_matching", replace(shifted, version="next"))
        again = jobs(daemons.until_quiet())
        assert again == ["analysis_stage", "analysis_stage", "formation_stage", "report_stage"]


@pytest.mark.parametrize(
    ("tags", "waits"),
    [
        ({"dagster/will_retry": "true"}, True),
        ({"dagster/will_retry": "true", "dagster/auto_retry_run_id": "next"}, False),
        ({}, False),
    ],
    ids=["about to be retried", "its retry has begun", "will not be retried"],
)
def test_a_crashed_batch_is_in_flight_until_dagster_has_started_it_again(tags, waits):
    """In between, what it trained gives the rest another identity; a second run would only meet its lock."""
    assert (WILL_RETRY_TAG, AUTO_RETRY_RUN_ID_TAG) == ("dagster/will_retry", "dagster/auto_retry_run_id")
    with dg.DagsterInstance.ephemeral() as instance:
        mine = {STAGE_TAG: "training", RUN_TAG: RUN, **tags}
        create_run_for_test(instance, "training_stage", status=dg.DagsterRunStatus.FAILURE, tags=mine)
        assert Board(instance).in_flight == ({(RUN, "training")} if waits else set())


def test_a_corpus_that_was_edited_is_read_again_at_the_next_launch(trained):
    assert trained.tick() == [], "the text has been read"
    (text,) = list((trained.home / "text").glob("*.txt"))[:1]
    before = query(trained.home / "store", "select fingerprint from runs").rows()
    text.write_text(text.read_text() + "and one more sentence about the old lighthouse keeper\n" * 3)
    assert trained.tick() == [], "nobody asked for it"
    assert trained.launch()
    started = trained.until_quiet()
    assert jobs(started)[0] == "training_stage"
    assert trained.said("work") == "everything launched is current"
    assert query(trained.home / "store", "select fingerprint from runs").rows() != before
