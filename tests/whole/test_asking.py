"""Commands that show what a finished project holds, in this process."""

import re
import webbrowser

import pytest
import typer.main

from mech_pipeline.commands.table import app
from mech_pipeline.errors import MechError
from mech_pipeline.store.reading.query import query
from tests.support.command_line import FINISHED, finished_project
from tests.support.places import ROOT
from tests.support.tiny import write_experiment


@pytest.fixture
def mech(monkeypatch, capsys):
    """Runs a command on the finished tiny project; gives what it printed, in one line."""
    home = finished_project()
    monkeypatch.setenv("MECH_HOME", str(home))
    monkeypatch.setenv("MECH_STORE", str(home / "store"))
    monkeypatch.chdir(home)

    def run(*arguments):
        typer.main.get_command(app).main(list(arguments), prog_name="mech", standalone_mode=False)
        return " ".join(capsys.readouterr().out.split())

    return run


def test_ls_tells_how_far_each_run_is_and_when_it_formed(mech):
    shown = mech("ls")
    for run in ("tiny.baseline.s0", "tiny.control.s0"):
        assert re.search(rf"tiny │ {run} │ complete │ 6 │ 24 │", shown)
    assert "induction_copy_advantage never" in shown
    assert "never run" not in shown, "the project's only file has run"


def test_ls_names_files_that_never_ran_and_files_that_cannot_be_read(mech, tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "later.yaml").write_text("experiment: soon\n")
    (tmp_path / "experiments" / "wrong.yaml").write_text("experiment: [\n")
    (tmp_path / "experiments" / "away.yaml").symlink_to("nowhere")
    monkeypatch.setenv("MECH_HOME", str(tmp_path))
    monkeypatch.setenv("MECH_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    shown = mech("ls")
    assert "soon: never run; mech run experiments/later.yaml" in shown
    assert "wrong (cannot be read; `mech status` says why): never run" in shown
    assert "away (cannot be read" in shown
    assert not (tmp_path / "store").exists(), "asking makes no store"


def test_compare_shows_what_differs_and_nothing_that_does_not(mech):
    shown = mech("compare", "tiny.baseline", "tiny.control.s0")
    assert "│ data.plain │ 0.25 │ 1.0 │" in shown
    assert "data.context" not in shown
    last = "select arg_max(value, step) from mechanism_values where run = $r and mechanism = 'previous_token_attention'"
    for run in ("tiny.baseline.s0", "tiny.control.s0"):
        value = query(finished_project() / "store", last.replace("$r", f"'{run}'")).item()
        assert f"{value:.4g}" in shown


def test_an_example_shows_its_updates_and_its_ledger(mech):
    store = finished_project() / "store"
    sums = query(
        store,
        "select example_id, sum(value::double + value_later::double) as nats from ledger where term = 'example' and "
        "run = 'tiny.baseline.s0' and mechanism = 'induction_copy_advantage' group by 1 order by nats desc, 1",
    )
    best, nats = sums.row(0)
    shown = mech("example", best)
    assert f"example {best}" in shown
    assert re.search(rf"{re.escape(f'{nats:+.3g}')} │ 1 of {sums.height} │", shown)
    seen = query(store, f"from batches where example_id = '{best}' and run = 'tiny.baseline.s0'").height
    assert f"tiny.baseline.s0 saw it {seen} times" in shown


def test_a_new_project_is_read_and_planned_before_it_has_a_store(mech, tmp_path, monkeypatch):
    assert "mech run experiments/induction.yaml" in mech("init", str(tmp_path / "new"))
    home = tmp_path / "new"
    assert (home / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()
    with pytest.raises(MechError, match="is a project already"):
        mech("init", str(home))
    for name in ("MECH_HOME", "MECH_STORE"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(home)
    assert mech("ls") == "induction: never run; mech run experiments/induction.yaml"
    write_experiment(home / "experiments" / "tiny.yaml", **FINISHED | {"corpus": {"python_stdlib": True}})
    shown = mech("plan", "experiments/tiny.yaml")
    assert "│ tiny.baseline.s0 │ 24 │ 6 │" in shown
    assert "nothing yet" in shown
    assert not (home / "store").exists()


def test_a_plan_says_what_is_current(mech):
    shown = mech("plan", "experiments/tiny.yaml")
    assert re.search(r"│ tiny.control.s0 │ 24 │ 6 │ \d+ s │ │ │ │ \d+ s │ \d+ MB │ current │", shown), (
        "it has no attribution"
    )
    assert re.search(r"one after another: at most \S+ hours, \d+ MB", shown)


def test_a_report_opens_in_the_browser(mech, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(opened.append(url)) or True)
    mech("report", "tiny", "--open")
    assert opened == [(finished_project() / "store" / "reports" / "tiny.html").as_uri()]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("compare", "tiny", "tiny.contol.s0"), "did you mean 'tiny.control.s0'"),
        (("report", "tinny"), "'tinny' has no report → did you mean 'tiny'"),
        (("history", "leger"), "did you mean 'ledger'"),
    ],
)
def test_a_name_that_is_nearly_right_is_guessed(mech, command, said):
    with pytest.raises(MechError, match=said):
        mech(*command)


def test_the_shell_completes_names_and_never_complains(mech, monkeypatch, tmp_path):
    from mech_pipeline.commands import completing

    mech("tables", "runs")
    assert completing.runs() == ["tiny.baseline.s0", "tiny.control.s0"]
    assert {"tiny", "tiny.control", "tiny.control.s0"} <= set(completing.sides())
    assert "ledger" in completing.tables()
    monkeypatch.setenv("MECH_STORE", str(tmp_path / "nowhere"))
    assert completing.experiments() == []
