"""One direction of imports: no circles, science below the store, and research code never sees Dagster."""

import ast
import os
import shlex
import subprocess
import sys

import pytest

from mech_pipeline.pipeline.run_row import write_run_row
from mech_pipeline.resolve import read_experiment
from mech_pipeline.store.store import Store
from tests.support.imports import circles, import_graph
from tests.support.places import ROOT
from tests.support.tiny import write_experiment, write_text

COMPOSITION_ROOTS = {"definitions.py", "commands", "train.py"}


def research_modules():
    folder = ROOT / "mech_pipeline"
    return [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[0] not in COMPOSITION_ROOTS]


@pytest.mark.process
def test_research_code_imports_without_dagster():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in research_modules()]
    code = "import sys; sys.modules['dagster'] = None\n" + "\n".join(
        f"import {name.removesuffix('.__init__')}" for name in names
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_research_code_imports_neither_assets_nor_resources():
    for path in research_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                assert not module.startswith(("mech_pipeline.assets", "mech_pipeline.resources", "dagster")), (
                    f"{path}: {module}"
                )


def in_folder(module: str, *folders: str) -> bool:
    return module.startswith(tuple(f"mech_pipeline.{folder}" for folder in folders))


def test_circles_are_found():
    assert circles({"a": {"b", "os"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("functions", [False, True])
def test_no_modules_import_each_other_in_a_circle(functions):
    graph = import_graph(functions=functions)
    assert "mech_pipeline.store.files.interface" in graph["mech_pipeline.store.files.s3"]
    assert circles(graph) == []


@pytest.mark.parametrize("science", ["spec", "data", "training", "mechanisms", "attribution", "formation", "signals"])
def test_science_knows_neither_store_nor_pipeline_nor_reports(science):
    graph = import_graph(functions=True)
    above = ("store", "pipeline", "reports", "assets", "resources")
    within = {module for module in graph if in_folder(f"{module}.", f"{science}.")}
    assert within
    assert [(m, other) for m in within for other in graph[m] if in_folder(f"{other}.", *(f"{a}." for a in above))] == []


def test_reports_do_not_import_the_pipeline():
    graph = import_graph(functions=True)
    reports = {module for module in graph if in_folder(module, "reports.")}
    assert reports
    assert [(m, other) for m in reports for other in graph[m] if in_folder(f"{other}.", "pipeline.")] == []


def test_only_assets_resources_and_definitions_import_dagster():
    graph = import_graph(functions=True)
    users = {module for module, others in graph.items() if any(o.split(".")[0] == "dagster" for o in others)}
    assert "mech_pipeline.definitions" in users
    assert [u for u in users if not in_folder(f"{u}.", "assets.", "resources.", "definitions.")] == []


def test_resources_do_not_import_assets():
    for path in (ROOT / "resources").glob("*.py"):
        assert "mech_pipeline.assets" not in path.read_text()


COMMANDS = [
    "--help",
    "ls",
    "compare tiny tiny",
    "tables",
    "sql 'select 1'",
    "report tiny",
    "history runs",
    "verify --quick",
    "warehouse",
]


def loaded_by(command, home):
    """Top-level modules that a command has loaded when it ends, and its exit code."""
    code = (
        "import sys\nfrom mech_pipeline.commands.app import main\nended = 0\ntry:\n    main()\n"
        "except SystemExit as end:\n    ended = end.code\n"
        "print('LOADED', ended, *{name.partition('.')[0] for name in sys.modules})"
    )
    environment = {**os.environ, "MECH_HOME": str(home), "MECH_STORE": str(home / "store")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *shlex.split(command)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    ended, *modules = done.stdout.rpartition("LOADED ")[2].split()
    assert ended == "0", done.stderr
    return set(modules)


@pytest.fixture
def home(tmp_path):
    """A project with an experiment that is described and not trained, and a store with a report."""
    write_text(tmp_path)
    file, store = write_experiment(tmp_path / "experiments" / "tiny.yaml"), Store(tmp_path / "store")
    write_run_row(store, read_experiment(file, tmp_path).runs()[0], "0" * 64, "planned")
    store.files.write("reports/tiny.html", b"<html></html>")
    return tmp_path


@pytest.mark.process
@pytest.mark.parametrize("command", COMMANDS)
def test_asking_loads_neither_pytorch_nor_dagster(command, home):
    """They take seconds to load."""
    heavy = {"torch", "transformers", "transformer_lens", "dagster", "pandas", "scipy", "sklearn", "matplotlib"}
    assert not heavy & loaded_by(command, home)


@pytest.mark.process
def test_status_loads_pytorch_alone_of_what_trains_and_serves(home):
    """Versions of mechanisms are in modules that need PyTorch; what builds models, draws or serves is not asked."""
    heavy = {"transformers", "transformer_lens", "dagster", "pandas", "scipy", "sklearn", "matplotlib", "datasets"}
    assert not heavy & loaded_by(f"status {home / 'experiments' / 'tiny.yaml'}", home)


@pytest.mark.process
def test_reading_an_imported_experiment_loads_nothing_that_trains():
    """Where its revisions are is a matter of files; only what they hold needs PyTorch."""
    names = [f"mech_pipeline.exchange.suites.{name}" for name in ("described", "layouts")]
    code = "import sys\n" + "".join(f"import {name}\n" for name in names) + "print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert not {"torch", "transformers", "safetensors", "huggingface_hub"} & set(loaded.split())


@pytest.mark.process
def test_a_spec_is_pure():
    """`spec/` knows neither the mechanisms that there are, nor data, nor PyTorch."""
    names = [f"mech_pipeline.spec.{path.stem}" for path in (ROOT / "mech_pipeline" / "spec").glob("[a-z]*.py")]
    code = "import sys\n" + "".join(f"import {name}\n" for name in names) + "print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    allowed = ("mech_pipeline.spec", "mech_pipeline.errors", "mech_pipeline.system_errors")
    ours = [name for name in loaded.split() if name.startswith("mech_pipeline.")]
    assert "mech_pipeline.spec.experiment" in ours
    assert [name for name in ours if not name.startswith(allowed)] == []
    assert not {"torch", "tokenizers", "duckdb"} & set(loaded.split())
