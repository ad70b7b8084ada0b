"""One direction of imports: research code never sees Dagster, nor the folders that do."""

import ast
import os
import shlex
import subprocess
import sys

import pytest

from tests.support.places import ROOT

COMPOSITION_ROOTS = {"definitions.py", "commands", "train.py"}


def research_modules():
    folder = ROOT / "mech_pipeline"
    return [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[0] not in COMPOSITION_ROOTS]


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
