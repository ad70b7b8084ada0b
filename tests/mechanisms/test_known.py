"""Facts of mechanisms are known without loading them, and are those of the mechanisms themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mech_pipeline.mechanisms import known
from mech_pipeline.mechanisms.known import Known
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.spec.model import Model
from tests.support.places import ROOT

GOOD = """
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.requirements import needs_layers
from mech_pipeline.mechanisms.source import tiled
MECHANISM = Mechanism(lambda model, data: 1.0, tiled, "u", "m", requires=needs_layers(3))
"""


@pytest.fixture
def fresh(monkeypatch, tmp_path, mechanisms_of):
    """Called with a folder, it gives what a new process knows: nothing is loaded, facts come from the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def knowing(folder: Path | None = None) -> Known:
        mechanisms_of(folder)
        monkeypatch.setattr(known, "_is_loaded", lambda: False)
        return Known()

    return knowing


def kept(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.json"))


def no_loading(monkeypatch):
    def fails(*asked):
        raise AssertionError("loaded, though it was known")

    monkeypatch.setattr(known, "_live", fails)
    monkeypatch.setattr(known, "_loaded_missing", fails)


def test_kept_facts_are_those_of_the_mechanisms(fresh, monkeypatch, tmp_path):
    two = Model(layers=2)
    first = fresh()
    missing = {name: first.missing(name, two) for name in first.mechanisms}
    no_loading(monkeypatch)
    again = fresh()
    assert set(again.mechanisms) == set(MECHANISMS)
    assert set(again.detectors) == set(DETECTORS)
    for name, facts in again.mechanisms.items():
        mechanism = MECHANISMS[name]
        assert (facts.version, facts.reads_text, facts.unit) == (
            mechanism.version,
            mechanism.reads_text,
            mechanism.unit,
        )
        assert facts.corrupted == (mechanism.corrupted is not None)
        assert again.missing(name, two) == missing[name] == mechanism.missing(two)
    assert {name: facts.version for name, facts in again.detectors.items()} == {
        name: detector.version for name, detector in DETECTORS.items()
    }
    assert len(kept(tmp_path)) == 1


def test_an_edit_of_the_projects_file_is_a_new_version(fresh, monkeypatch, tmp_path):
    mine = tmp_path / "mechanisms"
    mine.mkdir()
    (mine / "own.py").write_text(GOOD)
    before = fresh(mine)
    version = before.mechanisms["own"].version
    assert before.missing("own", Model(layers=2)) == "needs 3 layers; the model has 2"
    (mine / "own.py").write_text(GOOD.replace("1.0", "2.0"))
    after = fresh(mine).mechanisms["own"].version
    assert version != after
    assert len(kept(tmp_path)) == 2
    no_loading(monkeypatch)
    assert fresh(mine).mechanisms["own"].version == after


def test_what_no_hash_covers_is_found_anew(fresh, tmp_path):
    mine = tmp_path / "mechanisms"
    mine.mkdir()
    (mine / "own.py").write_text("import somewhere_else\n" + GOOD)
    sys.modules["somewhere_else"] = sys
    try:
        assert "own" in fresh(mine).mechanisms
    finally:
        del sys.modules["somewhere_else"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mechanisms": {"loss": {"other": 1}}, "detectors": {}}'])
def test_a_broken_cache_is_made_anew(fresh, tmp_path, content):
    names = set(fresh().mechanisms)
    (file,) = kept(tmp_path)
    file.write_text(content)
    assert set(fresh().mechanisms) == names
    assert file.read_text() != content


def test_without_a_place_to_keep_them_facts_are_known_all_the_same(fresh, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert set(fresh().mechanisms) == set(MECHANISMS)


@pytest.mark.process
def test_a_plan_is_made_without_pytorch():
    modules = ["pipeline.plan", "resolve", "mechanisms.known", "commands.status"]
    code = "import sys; sys.modules['torch'] = None\n" + "\n".join(f"import mech_pipeline.{name}" for name in modules)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT, env=environment)


@pytest.mark.process
def test_values_of_signals_are_planned_without_pytorch():
    code = (
        "import sys; sys.modules['torch'] = None\nimport mech_pipeline.pipeline.signals.wanted\n"
        "from mech_pipeline.signals.registry import signal_versions\nassert 'training_loss' in signal_versions()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT, env=environment)
