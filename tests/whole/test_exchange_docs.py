"""docs/exchange.md: every command and all Python works, in its order, on a finished project."""

import re
import shlex
import shutil

import pytest
import yaml

from mech_pipeline.exchange.suites.layouts import LAYOUTS
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.training.update.schedule import learning_rate
from tests.support.command_line import finished_project, mech
from tests.support.docs_commands import blocks, commands, for_tiny
from tests.support.places import ROOT

PAGE = ROOT / "docs" / "exchange.md"
COMMANDS = commands("docs/exchange.md")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    home = tmp_path_factory.mktemp("copied") / "project"
    shutil.copytree(finished_project(), home)
    return home


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_works(project, command):
    program, *words = shlex.split(for_tiny(command))
    assert program == "mech"
    assert mech(project, *words).returncode == 0


def test_the_python_of_the_page_reads_the_bundle(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (block,) = blocks("docs/exchange.md", "python")
    found = {}
    exec(block.text, found)
    assert found["rows"].height == found["again"].num_rows > 0
    assert len(found["counted"]) == 2


def test_the_experiment_of_the_page_is_one():
    block, *_ = blocks("docs/exchange.md", "yaml")
    specs = parse_experiment(yaml.safe_load(block.text)).runs()
    assert [spec.imported.place for spec in specs] == [f"EleutherAI/pythia-14m-seed{seed}" for seed in (1, 2, 3)]
    assert {f"`{name}`" for name in LAYOUTS} == set(re.findall(r"^\| (`\w+`) \| \S", PAGE.read_text(), flags=re.M))


def test_a_ledger_of_what_others_trained_is_asked_for_as_the_page_says():
    whole, part, reconstructed = (yaml.safe_load(block.text) for block in blocks("docs/exchange.md", "yaml"))
    spec = parse_experiment(whole | part | {"ledger": part["ledger"] | {"seeds": "all"}}).runs()[0]
    assert spec.accounts == ("induction_copy_advantage",)
    assert spec.imported.batches.endswith("batches.parquet")
    assert learning_rate(spec.optimizer, 143_000) == pytest.approx(1e-4)
    assert parse_experiment(whole | reconstructed).runs()[0].imported.moments == "reconstruct"
