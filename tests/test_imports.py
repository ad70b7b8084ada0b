"""One direction of imports: no circles, science below the store, and research code never sees Dagster."""

import ast
import os
import shlex
import subprocess
import sys

import pytest

from tests.support.imports import circles, import_graph
from tests.support.places import ROOT

COMPOSITION_ROOTS = {"definitions.py", "commands/app.py", "train.py"}


def research_modules():
    folder = ROOT / "mech_pipeline"
    return [path for path in folder.rglob("*.py") if path.relative_to(folder).as_posix() not in COMPOSITION_ROOTS]


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


@pytest.mark.parametrize("science", ["spec", "data", "training", "mechanisms", "attribution", "formation"])
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


@pytest.mark.parametrize("command", ["sql 'select 1'", "tables", "report tiny", "history runs", "verify --quick"])
def test_asking_loads_neither_pytorch_nor_dagster(command, tmp_path):
    """They take seconds to load."""
    code = (
        "import sys\nfrom mech_pipeline.commands.app import main\nfrom mech_pipeline.store.store import Store\n"
        "Store(sys.argv.pop(1))\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'dagster', 'pandas'} & set(sys.modules)"
    )
    environment = {**os.environ, "MECH_HOME": str(tmp_path), "MECH_STORE": str(tmp_path / "store")}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), *shlex.split(command)],
        check=True,
        capture_output=True,
        env=environment,
    )
