"""Every notebook runs from top to bottom, on the tiny experiment."""

import runpy

import pytest

from tests.support.command_line import finished_project
from tests.support.docs_commands import for_tiny
from tests.support.places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    marimo = pytest.importorskip("marimo")
    monkeypatch.setenv("MECH_STORE", str(finished_project() / "store"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / notebook.name).write_text(for_tiny(notebook.read_text()))
    app = runpy.run_path(str(tmp_path / notebook.name))["app"]
    assert isinstance(app, marimo.App)
    _, defined = app.run()
    assert list(defined["patterns"]) == defined["shown"]
    for pattern in defined["patterns"].values():
        assert pattern.shape == (defined["sequence"].shape[1],) * 2
        assert float(pattern.sum(-1).min()) == pytest.approx(1, abs=1e-5)
    assert defined["example"].example_id == defined["ledger"]["example_id"][0]
