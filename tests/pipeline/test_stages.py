"""The table of stages: everything is derived from it, over the graph of runs."""

import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors.torch import load, save

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline import alone, stage_costs, stages
from mech_pipeline.pipeline.cells import Block, Cell, outdated, stored_versions, write
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.plan import Plan, ready_stages
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stage import SILENT, Output, Read, Scope, Stage, View
from mech_pipeline.pipeline.work import work_of
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from tests.support import tiny, toy_stage
from tests.support.places import ROOT

SMALL = {"ledger": {}, "influence": {}, "gradients": [], "detectors": [], "seeds": [0]}
SMALL |= {"formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2}]}
BASELINE, CONTROL = "tiny.baseline.s0", "tiny.control.s0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)


def experiment_of(**change):
    experiment = parse_experiment(tiny.TINY | SMALL | change)
    specs = experiment.runs()
    return experiment, specs, {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}


def add(monkeypatch, *more):
    monkeypatch.setattr(stages, "STAGES", (*stages.STAGES, *more))
    monkeypatch.setattr(alone, "STAGES", stages.STAGES)


def toy_table(name):
    return replace(toy_stage.TABLE, name=name)


def test_every_table_is_filled_by_one_asset_and_stages_come_after_what_they_read():
    filled = [table for stage in stages.STAGES for table in stage.tables]
    assert sorted(filled) == sorted(set(TABLES) - {stage_costs.TABLE}), "that one is filled beside every stage's own"
    assert set(stages.makers()) == set(filled)
    names = [stage.name for stage in stages.STAGES]
    for place, stage in enumerate(stages.STAGES):
        before = [*(read.stage for read in stage.inputs if read.of is None), *stage.after]
        assert set(before) <= set(names[:place]), stage.name


@pytest.mark.slow
def test_a_toy_stage_is_one_module_and_one_entry(local_store, folder, monkeypatch):
    experiment, specs, corpora = experiment_of(arms={"baseline": {}})
    alone.compute_all(local_store, specs, corpora, experiment)
    assert ready_stages(local_store, specs[0], corpora[BASELINE]) == {}

    monkeypatch.setitem(TABLES, "toy", toy_stage.TABLE)
    add(monkeypatch, toy_stage.STAGE)
    planned = len(specs[0].checkpoint_steps())
    assert ready_stages(local_store, specs[0], corpora[BASELINE]) == {"toy": planned}
    batches = work_of(local_store, specs[0], corpora[BASELINE])
    assert [(work.stage, work.steps) for work in batches] == [("toy", specs[0].checkpoint_steps())]
    assert stages.makers()["toy"] == "toy"
    assert alone.compute_all(local_store, specs, corpora, experiment) == [("toy", BASELINE)]
    assert query(local_store.root, "select count(*) from toy where value > 0").rows() == [(planned,)]
    assert alone.compute_all(local_store, specs, corpora, experiment) == []


@pytest.mark.slow
def test_dagster_and_docs_know_the_toy_stage(tmp_path):
    """In a process of its own: assets and jobs are made from the table when they are imported."""
    tiny.write_text(tmp_path)
    file = tiny.write_experiment(
        tmp_path / "experiments" / "tiny.yaml", corpus={"files": str(tmp_path / "text" / "*.txt")}, **SMALL
    )
    code = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from mech_pipeline.pipeline import stages
from mech_pipeline.store.tables.all import TABLES
from tests.support import toy_stage
TABLES["toy"] = toy_stage.TABLE
stages.STAGES = (*stages.STAGES, toy_stage.STAGE)
import dagster as dg
from mech_pipeline.assets.launcher.execute import Executor
from mech_pipeline.assets.orchestration.jobs import STAGE_JOBS
from mech_pipeline.assets.registering import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.spec.experiment import load_experiment
home = Path(sys.argv[1])
definitions = build_definitions(str(home / "store"), home / "experiments")
spec = next(s for s in definitions.resolve_all_asset_specs() if s.key.to_user_string() == "toy")
assert spec.description == "‖θ‖ at a checkpoint. One row."
assert [column.name for column in spec.metadata["dagster/column_schema"].columns][:3] == ["run", "step", "value"]
assert STAGE_JOBS["toy"].description == "Measures how long the weights are."
run = "tiny.baseline.s0"
with dg.DagsterInstance.ephemeral() as instance:
    register(instance, load_experiment(home / "experiments" / "tiny.yaml").runs())
    executor = Executor(definitions, instance, 1)
    for asset in ("run_spec", "tokens", "training_run"):
        executor.run_assets([asset], run)
    executor.step_assets(["toy"], run, 0, 24)
    made = instance.get_materialized_partitions(dg.AssetKey("toy"))
assert len(made) == 6, made
print("known", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert "known" in done.stderr, done.stderr[-3000:]
    assert file.exists()


def follower(name, read, scope=Scope.RUN):
    """A stage that reads another one's result."""

    def made_from(view):
        names = [spec.run for spec in view.specs]
        versions = [v.data_version for run in names for v in stored_versions(view.store, "formation", run).values()]
        return fingerprint(name, sorted(versions))

    def wanted(view):
        return {Cell(name, view.experiment.experiment if view.experiment else view.spec.run, 1): made_from(view)}

    def compute(view, steps, told):
        for cell, expected in wanted(view).items():
            write(view.store, [Block(cell, {"value": [1.0]}, expected)], "1")
        return 1

    output = Output(name, "toy", (name,), lambda: "1")
    return Stage(name, "Follows.", scope, (output,), wanted=wanted, compute=compute, reads=(read,), priority=5)


@pytest.mark.slow
def test_an_arm_waits_for_another_runs_result_and_the_work_goes_on_until_it_had_its_turn(
    local_store, folder, monkeypatch
):
    """The control reads the baseline's formation: it is ready only then, and nobody stops before."""
    experiment, specs, corpora = experiment_of()
    reads = Read("formation", of=lambda spec: [BASELINE] if spec.arm == "control" else [])
    monkeypatch.setitem(TABLES, "follows", toy_table("follows"))
    add(monkeypatch, follower("follows", reads))
    plan = Plan(local_store, specs, corpora, experiment)
    plan.look()
    follows = stages.stage_of("follows")
    assert plan.state(follows, CONTROL).waits_for == (("formation", BASELINE),)
    worked = alone.compute_all(local_store, specs, corpora)
    assert worked.index(("formation", BASELINE)) < worked.index(("follows", CONTROL))
    assert alone.compute_all(local_store, specs, corpora) == []


@pytest.mark.slow
def test_a_stage_of_an_experiment_waits_for_all_runs_and_a_change_of_one_makes_it_again(
    local_store, folder, monkeypatch
):
    experiment, specs, corpora = experiment_of()
    monkeypatch.setitem(
        TABLES, "whole", replace(toy_table("whole"), columns=(*_of_experiment(),), keys=("experiment", "step"))
    )
    add(monkeypatch, follower("whole", Read("formation"), Scope.EXPERIMENT))
    worked = alone.compute_all(local_store, specs, corpora, experiment)
    last = max(worked.index(("formation", spec.run)) for spec in specs)
    assert worked.index(("whole", "tiny")) > last
    assert alone.compute_all(local_store, specs, corpora, experiment) == []
    changed = [{"mechanism": "induction_copy_advantage", "threshold": -9.0, "sustain": 2}]
    experiment, specs, corpora = experiment_of(formation=changed)
    assert {("formation", BASELINE), ("whole", "tiny")} <= set(
        alone.compute_all(local_store, specs, corpora, experiment)
    )


def _of_experiment():
    first = replace(toy_stage.TABLE.columns[0], name="experiment")
    return (first, *toy_stage.TABLE.columns[1:])


def test_what_reads_a_run_that_is_not_here_waits_and_does_not_hang(local_store, folder, monkeypatch):
    _, specs, corpora = experiment_of(arms={"baseline": {}})
    monkeypatch.setitem(TABLES, "follows", toy_table("follows"))
    add(monkeypatch, follower("follows", Read("formation", of=lambda spec: ["elsewhere.a.s0"])))
    assert ("follows", BASELINE) not in alone.compute_all(local_store, specs, corpora)


def test_beside_training_only_what_is_live_looks_at_what_is_there(local_store, folder):
    """Analysis takes the checkpoints that are published; what reads all of it waits until training has ended."""
    _, specs, corpora = experiment_of(arms={"baseline": {}})
    tiny.prepare(local_store, specs[0])
    assert [work.stage for work in work_of(local_store, specs[0], corpora[BASELINE])] == ["training"]
    stages.stage_of("training").compute(View(local_store, specs, corpora), (), SILENT)
    local_store.delete("checkpoints", f"run = '{BASELINE}' and step >= 12")
    found = {work.stage: work.steps for work in work_of(local_store, specs[0], corpora[BASELINE])}
    assert found == {"training": (), "analysis": (0, 3, 6)}
    assert set(ready_stages(local_store, specs[0], corpora[BASELINE])) == {"training"}


@pytest.mark.slow
def test_a_run_that_is_looked_at_alone_finds_what_it_reads_of_others(local_store, folder, monkeypatch):
    """As Dagster's sensor looks: run by run."""
    experiment, specs, corpora = experiment_of()
    alone.compute_all(local_store, specs, corpora, experiment)
    monkeypatch.setitem(TABLES, "follows", toy_table("follows"))
    add(
        monkeypatch, follower("follows", Read("formation", of=lambda spec: [BASELINE] if spec.arm == "control" else []))
    )
    control = next(spec for spec in specs if spec.run == CONTROL)
    assert work_of(local_store, control, corpora[CONTROL]) == [], "nobody says how the baseline stands"
    known = {spec.run: (spec, corpora[spec.run]) for spec in specs}
    assert [work.stage for work in work_of(local_store, control, corpora[CONTROL], known.get)] == ["follows"]


def test_a_stage_that_works_and_changes_nothing_is_not_asked_for_ever(local_store, folder, monkeypatch):
    _, specs, corpora = experiment_of(arms={"baseline": {}})
    lazy = replace(toy_stage.STAGE, compute=lambda view, steps, told: 0)
    monkeypatch.setitem(TABLES, "toy", toy_stage.TABLE)
    add(monkeypatch, lazy)
    worked = alone.compute_all(local_store, specs, corpora)
    assert worked.count(("toy", BASELINE)) == 1


def without_moments(store, run):
    """The store's checkpoints as somebody else would have left them: weights alone."""
    opened = OpenRun(store, run.spec)
    for step, version in opened.checkpoints.items():
        tensors = {n: t for n, t in load(opened.content(step)[0]).items() if n.startswith("model.")}
        blob = store.put_blob(f"checkpoints/run={run.spec.run}/imported-{step}", "state.safetensors", save(tensors))
        row = query(store.root, f"select * from checkpoints where step = {step}").to_dict(as_series=False)
        row |= {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256]}
        store.write("checkpoints", row, replace={"run": [run.spec.run], "step": [step]})
        assert version.data_version == row["data_version"][0]


def test_checkpoints_without_moments_are_analysed_and_what_needs_more_is_refused_in_words(local_store, folder):
    asked = {"mechanisms": ["induction_copy_advantage"]}
    _, specs, corpora = experiment_of(arms={"baseline": {}}, ledger=asked, influence=asked)
    spec = specs[0]
    tiny.prepare(local_store, spec)
    stages.stage_of("training").compute(View(local_store, specs, corpora), (), SILENT)
    without_moments(local_store, OpenRun(local_store, spec))
    assert OpenRun(local_store, spec).brings == set(Need) - {Need.MOMENTS}
    plan = Plan(local_store, specs, corpora)
    plan.look()
    assert "analysis" in plan.ready(spec.run)
    assert plan.refused(spec.run)["ledger"] == (f"needs moments, which the checkpoints of run {spec.run} do not bring")
    worked = [stage for stage, _ in alone.compute_all(local_store, specs, corpora)]
    assert "analysis" in worked
    assert "formation" in worked
    assert not {"ledger", "influence"} & set(worked)
    values = stored_versions(local_store, "mechanism_values", spec.run)
    assert len(values) == len(spec.checkpoint_steps()) * len(spec.mechanisms)
    with pytest.raises(MechError, match=r"exp_avg\.\S+ is missing"):
        OpenRun(local_store, spec).state(6)


def test_cells_of_one_table_go_into_one_commit_where_they_are_a_block(local_store):
    cells = [Cell("mechanism_values", "r", step, name) for step in (1, 2) for name in ("a", "b")]
    write(local_store, [Block(cell, {"value": [1.0]}, "x") for cell in cells], "1")
    count = "select count(*) from mechanism_values"
    assert query(local_store.root, count).rows() == [(4,)]
    assert local_store.committed["mechanism_values"].rows == 4
    # three of four are no block: what is not named stays
    write(local_store, [Block(cell, {"value": [2.0]}, "y") for cell in cells[:3]], "1")
    found = query(local_store.root, "select step, mechanism, value from mechanism_values order by all").rows()
    assert found == [(1, "a", 2.0), (1, "b", 2.0), (2, "a", 2.0), (2, "b", 1.0)]
    late = outdated(stored_versions(local_store, "mechanism_values", "r"), dict.fromkeys(cells, "y"))
    assert late == [cells[3]]


@pytest.mark.parametrize(
    "output",
    [o for s in stages.STAGES if s.scope in (Scope.CHECKPOINT, Scope.TARGET) for o in s.outputs],
    ids=lambda o: o.name,
)
def test_rows_that_the_ui_shows_of_a_batch_say_their_step(output, tmp_path):
    sql = (output.rows or f"select * from {output.table}").replace("$run", "''").replace("in $$", "= 0")
    with connect(Store(tmp_path).root) as connection:
        assert "step" in connection.sql(sql).columns
