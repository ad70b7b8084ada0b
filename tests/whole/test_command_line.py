"""`mech` as a person uses it: one whole experiment in a fresh project folder, a second run, a change, mistakes."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import time

import polars as pl
import pytest

from mech_pipeline.store.reading.query import query
from tests.support.command_line import FINISHED, MECH, environment_of, finished_project, mech
from tests.support.docs_commands import commands, for_tiny
from tests.support.places import ROOT
from tests.support.tiny import TINY, write_experiment, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder in which the tiny experiment was run once; the output of that run."""
    finished, home = finished_project(), tmp_path_factory.mktemp("copied") / "project"
    shutil.copytree(finished, home)
    return home, (finished / "output.txt").read_text().replace("\n", "").replace(str(finished), str(home))


def table_versions(home):
    return {p.name: len(list((p / "_delta_log").glob("*.json"))) for p in (home / "store" / "tables").iterdir()}


def test_a_run_prints_formation_balance_documents_report_and_sql(project):
    home, output = project
    assert "Formation of induction_copy_advantage: at least 9, sustained 2 ×" in output
    assert "never (censored)" in output
    assert "Ledger of induction_copy_advantage, tiny.baseline.s0: explained" in output
    assert "text/file_" in output
    assert str(home / "store" / "reports" / "tiny.html") in output
    assert "mech sql" in output
    assert "updates, " in output
    assert "left" in output or "took" in output


def test_the_curve_of_a_run_is_shown_as_soon_as_its_formation_is_known(project):
    _, output = project
    words = "tiny.baseline.s0: induction_copy_advantage did not form by step 24 (at least 9 nats)"
    before, after = output.split(words)
    assert re.match(r"  step 0 [▁▂▃▄▅▆▇█]{30} 24, \S+ to \S+", after)
    assert (
        "finished influence of tiny.baseline.s0" not in before
    )  # a ledger may end first: another worker computes it meanwhile


def test_a_second_run_recomputes_nothing_and_says_so(project):
    home, _ = project
    before = table_versions(home)
    output = mech(home, "run", "experiments/tiny.yaml").stdout
    assert "nothing to recompute, everything is current" in output
    assert "Ledger of induction_copy_advantage" in output
    assert table_versions(home) == before


def test_changing_a_threshold_recomputes_formation_what_follows_from_it_and_the_report(project):
    home, _ = project
    best = query(
        home / "store",
        "select detector, arg_max(step, value) as step, max(value) from head_scores "
        "where run = 'tiny.baseline.s0' group by 1 order by step desc",
    ).rows()[0]
    assert best[1] > 0
    events = [{"detector": best[0], "threshold": best[2], "sustain": 1}]
    write_experiment(home / "experiments" / "tiny.yaml", **FINISHED, formation=events)
    before = table_versions(home)
    output = mech(home, "run", "experiments/tiny.yaml").stdout
    after = table_versions(home)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"runs", "formation", "influence", "reliability", "reports", "stage_costs"}
    kinds = r"\d+ % are (tiled|plain), \d+ % (tiled|plain)"
    told = rf"of the top 5 % of examples {kinds}, of the bottom 5 % {kinds} \(of all: {kinds}\)"
    assert re.search(told, " ".join(output.split()))
    assert "nothing to recompute" in mech(home, "run", "experiments/tiny.yaml").stdout


def test_sql_in_every_format(project, tmp_path):
    home, _ = project
    sql = "select run, step from checkpoints where run = 'tiny.control.s0' order by step limit 2"
    assert "tiny.control.s0" in mech(home, "sql", sql).stdout
    assert json.loads(mech(home, "sql", sql, "--format", "json").stdout) == [
        {"run": "tiny.control.s0", "step": 0},
        {"run": "tiny.control.s0", "step": 3},
    ]
    assert mech(home, "sql", sql, "--format", "csv").stdout.splitlines()[1] == "tiny.control.s0,0"
    mech(home, "sql", sql, "--format", "parquet", "--output", str(tmp_path / "x.parquet"))
    assert pl.read_parquet(tmp_path / "x.parquet")["step"].to_list() == [0, 3]
    mech(home, "sql", sql, "--output", str(tmp_path / "y.json"))
    assert [row["step"] for row in json.loads((tmp_path / "y.json").read_text())] == [0, 3]


def test_tables_status_and_report_commands(project):
    home, _ = project
    assert "mechanism_values" in mech(home, "tables").stdout
    assert "update_step" in mech(home, "tables", "ledger").stdout
    assert "tiny.control.s0" in mech(home, "status", "experiments/tiny.yaml").stdout
    assert mech(home, "report", "tiny").stdout.strip() == str(home / "store" / "reports" / "tiny.html")


def readme_commands():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_in_the_readme_works(project):
    """On the tiny experiment instead of the demo; `make` targets are resolved, not run."""
    home, _ = project
    commands = readme_commands()
    assert {"make demo", "make test", "make ui"} <= set(commands)
    for command in commands:
        words = shlex.split(command.replace("induction", "tiny"))
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        else:
            assert words[0] == ".venv/bin/mech", f"no test runs {command}"
            found = mech(home, *words[1:], check=False)  # verify and maintain tell their progress on stderr
            assert found.returncode == 0, found.stderr
            assert found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "experiments/none.yaml"), "does not exist"),
        (("run", "experiments/bad.yaml"), "unknown field 'sedes'"),
        (("sql", "drop view runs"), "read-only"),
        (("sql", "select * from nothing"), "mech tables"),
        (("tables", "nothing"), "there is no table 'nothing'"),
        (("report", "nothing"), "has no report"),
    ],
)
def test_mistakes_are_one_line_on_stderr_and_exit_code_one(project, arguments, message):
    home, _ = project
    (home / "experiments" / "bad.yaml").write_text(json.dumps(TINY | {"sedes": [1]}))
    found = mech(home, *arguments, check=False)
    (home / "experiments" / "bad.yaml").unlink()
    assert found.returncode == 1
    assert message in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"detectors": ["ioi_name_mover"]}, r"detector ioi_name_mover: prompt 1, .* does not fit"),
        ({"mechanisms": ["bracket_accuracy"]}, r"mechanism bracket_accuracy: prompt 1, .* does not fit"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_a_single_update_and_again(tmp_path, change, problem):
    asked = {"formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0}], "gradients": []}
    asked["mechanisms"] = ["induction_copy_advantage", *change.get("mechanisms", [])]
    asked["detectors"] = change.get("detectors", [])
    write_project(tmp_path, **asked, seeds=[0], arms={"baseline": {}})
    for _ in range(2):
        found = mech(tmp_path, "run", "experiments/tiny.yaml", check=False)
        assert found.returncode == 1
        assert re.search(problem, found.stderr.replace("\n", " ")), found.stderr
        assert len(found.stderr.splitlines()) == 1
        assert "updates, " not in found.stdout, "nothing was trained"


def test_without_a_store_or_project_the_next_step_is_named(tmp_path):
    found = mech(tmp_path, "sql", "select 1", check=False)
    assert found.returncode == 1
    assert "there is no store at" in found.stderr
    found = subprocess.run([*MECH, "run", "x.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1
    assert "no dagster.yaml" in found.stderr


def test_every_command_explains_itself(tmp_path):
    store = ("sql", "tables", "history", "verify", "maintain", "migrate", "warehouse")
    for command in ("", "init", "run", "ls", "plan", "status", "report", "compare", "example", *store):
        assert "Usage" in mech(tmp_path, *command.split(), "--help").stdout


def test_a_stopped_run_loses_nothing_and_continues(tmp_path):
    """Stopped by Ctrl-C, then killed, then left alone."""
    write_project(
        tmp_path,
        training={"steps": 3000, "batch": 8},
        checkpoints={"every": 300},
        ledger={},
        influence={},
        gradients=[],
        seeds=[0],
        arms={"baseline": {}},
    )
    code, _, errors = interrupted(tmp_path, signal.SIGINT)
    assert code == 130
    assert "mech: stopped; what was finished is kept" in errors
    stopped = kept(tmp_path)
    _, output, _ = interrupted(tmp_path, signal.SIGKILL)
    assert "continuing to 3000" in output
    killed = kept(tmp_path)
    assert stopped.items() < killed.items()
    assert len(killed) < 11, "it was killed in the middle"
    assert "continuing to 3000" in mech(tmp_path, "run", "experiments/tiny.yaml").stdout
    assert killed.items() < kept(tmp_path).items()
    assert len(kept(tmp_path)) == 11


def interrupted(home, sign):
    """Exit code and streams of a run that got a signal when it had kept two more checkpoints."""
    before = kept(home)
    process = subprocess.Popen(
        [*MECH, "run", "experiments/tiny.yaml"],
        cwd=home,
        env=environment_of(home),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(kept(home)) < len(before) + 2:
        time.sleep(0.5)
    assert len(kept(home)) > len(before), "some checkpoints were written"
    process.send_signal(sign)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def kept(home):
    if not (home / "store" / "tables" / "checkpoints").is_dir():
        return {}
    return dict(query(home / "store", "select step, data_version from checkpoints").rows())


def test_a_zoom_keeps_every_state_of_a_window_and_leaves_results_alone(project):
    home, _ = project
    (command,) = commands("docs/training.md")
    program, *words = shlex.split(for_tiny(command))
    assert (program, words) == (".venv/bin/mech", ["zoom", "tiny.baseline.s0", "7:10"])
    output = mech(home, *words).stdout
    assert "4 states of tiny.baseline.s0 kept" in output
    found = query(home / "store", "select distinct step from mechanism_values where run = 'tiny.baseline.s0'")
    assert {7, 8, 9, 10} <= set(found["step"].to_list())
    again = mech(home, "run", "experiments/tiny.yaml").stdout
    assert re.findall(r"finished (\w+) of", again) == ["report"], "the report shows more points; no result is new"
    for window, problem in (("20:99", "not inside run"), ("later", "is not FROM:TO")):
        failed = mech(home, "zoom", "tiny.baseline.s0", window, check=False)
        assert failed.returncode == 1
        assert problem in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
    assert "unknown to the store" in mech(home, "zoom", "nobody", "1:2", check=False).stderr
