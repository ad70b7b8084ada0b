"""docs/sql.md: every command and query works on a real store, in the tools it names (and README's DuckDB command)."""

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
import s3fs

from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import SNAPSHOT, TABLES
from mech_pipeline.store.tables.views import VIEWS
from tests.support.causes import compute, experiment_of
from tests.support.command_line import MECH, environment_of
from tests.support.docs_commands import ROOT, blocks, commands, for_tiny, inline_commands
from tests.support.tiny import write_project, write_text
from tests.support.warm_python import warm_python

PAGE = "docs/sql.md"
BROWSE = ROOT / ".venv-browse" / "bin"
WAREHOUSE = "store/warehouse.duckdb"


def shell(home, command, **environment):
    """Runs what a person types, in the project folder; a shell is asked only where the words need one."""
    own = str(Path(sys.executable).parent)
    known = {"PATH": f"{own}:{os.environ['PATH']}", "HOME": str(home / "home")}
    environment = environment_of(home) | known | environment
    words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
    if words[0] == "mech" and {"|", ">", "&&"}.isdisjoint(words):
        return warm_python([*MECH[1:], *shlex.split(command)[1:]], home, environment)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-e", "-c", command],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
        env=environment,
    )


def works(home, command, **environment):
    """What a command prints; it must succeed and say something, or write the file it names."""
    found = shell(home, command, **environment)
    assert found.returncode == 0, f"{command}\n{found.stdout}{found.stderr}"
    return found.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder in which the tiny experiment was run with every kind of row that the page asks for.

    It forms on seed 0, so that there is an influence.
    """
    attributed = {"mechanisms": ["induction_copy_advantage"]}
    home = tmp_path_factory.mktemp("project")
    (home / "home").mkdir()
    write_project(
        home,
        corpus={"files": "text/*.txt"},
        seeds=[0],
        held_out_loss=True,
        example_losses=True,
        readouts={"windows": [[0, 24]]},
        formation=[
            {"detector": "prefix_matching", "threshold": 0.089, "sustain": 1},
            {"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2},
        ],
        ledger=attributed | {"tokens": ["position", "target"]},
        model={"layers": 2, "heads": 2, "d_model": 16, "d_mlp": 12},
        neurons={"windows": [[0, 24]]},
        circuits=attributed | {"every": 12, "random_orders": 2},
        influence=attributed | {"methods": ["adjoint", "gradient_dot_adam"]},
    )
    works(home, "mech run experiments/tiny.yaml")
    return home


def tool(name):
    """A program of `make browse`; the test is skipped without it."""
    path = BROWSE / name
    if not path.exists():
        pytest.skip(f"{name} is not installed: `make browse` installs it into .venv-browse")
    return str(path)


def page_commands(program):
    return [line for line in commands(PAGE) if line.split()[0] == program]


def test_the_page_names_only_programs_that_a_test_runs():
    assert {line.split()[0] for line in commands(PAGE)} == {"mech", "duckdb", "harlequin"}
    assert len(page_commands("mech")) >= 10
    assert len(blocks(PAGE, "sql")) >= 12
    assert {(b.language, b.where) for kind in ("bash", "python", "sql") for b in blocks(PAGE, kind)} == {
        ("bash", ""),
        ("python", ""),
        ("sql", ""),
    }


@pytest.mark.parametrize("command", page_commands("mech"))
def test_every_mech_command_of_the_page_works(project, command):
    written = re.search(r"--output (\S+)", command)
    output = works(project, for_tiny(command, datetime.now(UTC).isoformat()))
    if written:
        assert pl.read_parquet(project / written[1]).height
    else:
        assert output.strip()
    if "--format csv" in command:
        assert output.count("\n") == 5, "two runs, two events, and the header"
    if "json.tool" in command:
        assert {row["run"] for row in json.loads(output)} == {"tiny.baseline.s0", "tiny.control.s0"}


def test_an_older_version_is_really_older(project):
    sql = next(shlex.split(c)[2] for c in page_commands("mech") if "--version ledger=1" in c)
    found = [query(project / "store", sql, versions={"ledger": version}).item() for version in (0, 1)]
    assert found[0] == 0
    assert found[1] == query(project / "store", sql).item() > 0


@pytest.fixture(scope="module")
def programme(tmp_path_factory):
    """A store with arms that choose, for the queries about them."""
    home = tmp_path_factory.mktemp("programme")
    write_text(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        compute(Store(home / "store"), experiment_of())
    return home


@pytest.mark.parametrize("block", blocks(PAGE, "sql"), ids=lambda block: f"line_{block.line}")
def test_every_query_of_the_page_finds_rows(block, request):
    of_arms = re.search(r"from (comparisons|arms|causal_measures|choices)", block.text)
    home = request.getfixturevalue("programme" if of_arms else "project")
    assert query(home / "store", for_tiny(block.text)).height


def test_the_queries_answer_what_the_sentence_above_them_asks(project):
    """Two of them against a sum that is known otherwise."""
    text = [for_tiny(block.text) for block in blocks(PAGE, "sql")]
    component = next(sql for sql in text if sql.startswith("select component"))
    balance = next(sql for sql in text if "ledger_balance" in sql)
    change = query(project / "store", balance).filter(pl.col("run") == "tiny.baseline.s0")["change"].item()
    assert query(project / "store", component)["nats"].sum() == pytest.approx(change, abs=1e-5)
    influence = query(project / "store", next(sql for sql in text if "per_unit_weight" in sql))
    places = "select count(distinct (document, line, kind)) as n from influence join examples using (example_id)"
    assert influence.height == min(10, query(project / "store", places).item())
    assert influence["reliable"].null_count() == 0


def test_a_globbed_folder_counts_rows_that_were_replaced(project):
    """The reason of the page's first warning; `runs` is written as planned, training and complete."""
    with duckdb.connect() as connection:
        globbed = connection.execute(f"select count(*) from '{project}/store/tables/runs/**/*.parquet'").fetchall()
    assert globbed[0][0] > query(project / "store", "select count(*) from runs").item() == 2


def test_the_python_of_the_page_runs_from_top_to_bottom(project, monkeypatch):
    monkeypatch.chdir(project)
    names = {}
    for block in blocks(PAGE, "python"):
        text = "\n" * (block.line - 1) + for_tiny(block.text).replace(
            "datetime(2026, 11, 24, 9, 30, tzinfo=UTC)", "datetime.now(UTC)"
        )
        exec(compile(text, PAGE, "exec"), names)  # a traceback names the line of the page
    assert names["curves"].height == 2 * 6 * 3, "two runs, six checkpoints, two mechanisms and the held-out loss"
    assert set(names["heads"]["detector"]) == {"prefix_matching"}
    assert names["loss"].height == 24
    assert dict(names["by_topic"].rows()).keys() == {"prose", "repetition"}
    assert pl.read_parquet("formation.parquet").height == 4
    assert names["then"].height == len(list((project / "store" / "tables").iterdir()))
    assert names["before"] > 0
    assert names["scores"].height == len(names["heads"])
    names["connection"].close()
    names["wide"].close()


@pytest.mark.parametrize("command", page_commands("duckdb") + inline_commands("README.md", "duckdb"))
def test_the_duckdb_command_line_opens_the_warehouse_and_cannot_write(project, command):
    words = [tool("duckdb"), *shlex.split(command)[1:]]
    typed = "" if len(words) > 3 else "select count(*) from ledger;\ncreate table x as select 1;\n"
    found = subprocess.run(words, cwd=project, input=typed, capture_output=True, text=True, timeout=300)
    assert found.stdout.strip()
    assert ("read-only mode" in found.stderr) if typed else (found.returncode == 0)


def test_every_query_but_snapshot_also_works_in_the_duckdb_command_line(project):
    for block in blocks(PAGE, "sql"):
        if "from snapshot" in block.text:
            continue
        found = subprocess.run(
            [tool("duckdb"), "-readonly", "-json", WAREHOUSE, for_tiny(block.text)],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert found.returncode == 0, block.text + found.stderr
        assert json.loads(found.stdout), block.text


_HARLEQUIN = """
import asyncio, json, sys
from harlequin import Harlequin
from harlequin.cli import build_cli

started = []
Harlequin.run = lambda self: started.append(self)
arguments = ["--locale", "C", *sys.argv[1:]]
build_cli(arguments)(arguments, standalone_mode=False)
app = started[0]


async def until(pilot, what, condition):
    for _ in range(200):
        if condition():
            return
        await pilot.pause(0.1)
    raise SystemExit(f"harlequin never got there: {what}")


async def type_in(pilot, sql):
    app.editor.text = sql
    app.action_focus_query_editor()
    await pilot.pause()
    await pilot.press("ctrl+j")


def labels(node, depth):
    return [str(child.label) for child in node.children] if depth == 0 else [
        label for child in node.children for label in labels(child, depth - 1)]


async def main():
    async with app.run_test(size=(140, 60)) as pilot:
        tree = app.data_catalog.database_tree
        await until(pilot, "connected", lambda: app.connection is not None and tree.root.children)
        for _ in range(2):
            for node in list(tree._tree_nodes.values()):
                node.expand()
            await pilot.pause(0.3)
        await until(pilot, "views", lambda: len(labels(tree.root, 2)) > 2)
        views = labels(tree.root, 2)
        await type_in(pilot, "select run, mechanism from formation order by all")
        await until(pilot, "rows", lambda: app.results_viewer.get_visible_table() is not None)
        table = app.results_viewer.get_visible_table()
        rows = [table.backend.get_row_at(index) for index in range(table.row_count)]
        await type_in(pilot, "create table x as select 1")
        await until(pilot, "error", lambda: len(app.screen_stack) > 1)
        error = " ".join(str(getattr(w, "content", "")) for w in app.screen.query("Static, Label, Markdown"))
        print(json.dumps({"views": views, "rows": rows, "error": error}))


asyncio.run(main())
"""


def test_harlequin_opens_the_warehouse_lists_the_views_and_cannot_write(project):
    """The real program with the arguments of the page; only its terminal is a simulated one."""
    tool("harlequin")
    (command,) = page_commands("harlequin")
    found = subprocess.run(
        [BROWSE / "python", "-c", _HARLEQUIN, *shlex.split(command)[1:]],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HOME": str(project / "home")},
    )
    assert found.returncode == 0, found.stdout + found.stderr
    seen = json.loads(next(line for line in found.stdout.splitlines() if line.startswith("{")))
    assert {label.split()[0] for label in seen["views"]} == {*TABLES, *VIEWS, SNAPSHOT}
    assert [row[0] for row in seen["rows"]] == ["tiny.baseline.s0"] * 2 + ["tiny.control.s0"] * 2
    assert "read-only" in seen["error"]


def test_a_marimo_notebook_asks_the_store(project):
    (block,) = blocks(PAGE, "python", "marimo")
    cell = "\n".join(f"    {line}".rstrip() for line in block.text.splitlines())
    (project / "notebook.py").write_text(
        f"import marimo\n\napp = marimo.App()\n\n\n@app.cell\ndef _():\n{cell}\n"
        "    print(type(formed).__module__, formed.rows())\n    return\n\n\n"
        'if __name__ == "__main__":\n    app.run()\n'
    )
    page = "marimo export html notebook.py --output notebook.html"
    tool("marimo")
    output = works(project, f"{BROWSE}/python notebook.py")
    assert "polars" in output
    assert "('tiny.baseline.s0', 'best_head:prefix_matching', 24)" in output
    works(project, f"{BROWSE}/{page}")
    assert "best_head:prefix_matching" in (project / "notebook.html").read_text()


@pytest.fixture
def bucket(project, server):
    """The project's store in the page's bucket on an S3 server; the address of the server."""
    keys = {"key": "my-key", "secret": "my-secret"}
    fs = s3fs.S3FileSystem(**keys, endpoint_url=server.endpoint, skip_instance_cache=True)
    fs.mkdir("my-bucket")
    fs.put(str(project / "store" / "store.json"), "my-bucket/my-prefix/store.json")
    fs.put(f"{project}/store/tables/", "my-bucket/my-prefix/tables/", recursive=True)
    yield server.endpoint
    fs.rm("my-bucket", recursive=True)


def test_the_commands_for_s3_work_against_a_bucket(project, bucket):
    (block,) = blocks(PAGE, "bash", "s3")
    output = works(project, block.text.replace("https://s3.example.org", bucket), AWS_ALLOW_HTTP="true")
    assert "tiny.control.s0" in output
    assert "shape: (2, " in output
    with duckdb.connect(project / ".mech" / "warehouse.duckdb", read_only=True) as connection:
        views = connection.sql("select sql from duckdb_views() where view_name = 'runs'").fetchall()
    assert "s3://my-bucket/my-prefix/tables/runs/" in views[0][0]
