"""One direction of imports: research code never sees Dagster, nor the folders that do."""

import ast
import os
import shlex
import subprocess
import sys

import pytest

from mech_pipeline.home import report_name
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from tests.support.places import ROOT

COMPOSITION_ROOTS = {"definitions.py", "commands/app.py", "train.py"}


def research_modules():
    folder = ROOT / "mech_pipeline"
    return [path for path in folder.rglob("*.py") if not (path.parent == folder and path.name in COMPOSITION_ROOTS)]


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


def test_resources_do_not_import_assets():
    for path in (ROOT / "resources").glob("*.py"):
        assert "mech_pipeline.assets" not in path.read_text()


@pytest.mark.process
@pytest.mark.parametrize("command", ["sql 'select 1'", "tables", "report tiny", "history runs", "verify --quick"])
def test_asking_loads_neither_pytorch_nor_dagster(command, tmp_path):
    """They take seconds to load. Each command succeeds on a store that has what it asks for, so that it runs to its end."""
    store = Store(tmp_path / "store")
    one = {column.name: ["x"] for column in TABLES["runs"].all_columns}
    store.write("runs", one | {"seed": [0]}, replace={"run": ["x"]})
    store.files.write(report_name("tiny"), b"<html></html>")
    code = (
        "import sys\nfrom mech_pipeline.commands.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'torch', 'dagster', 'pandas'} & set(sys.modules)\nassert not loaded, loaded"
    )
    environment = {**os.environ, "MECH_HOME": str(tmp_path), "MECH_STORE": store.root}
    command_line = [sys.executable, "-c", code, *shlex.split(command)]
    done = subprocess.run(command_line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
