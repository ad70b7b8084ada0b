"""The store works with the oldest DuckDB that pyproject.toml promises as with the newest, and they share files.

`make` puts the oldest beside the environment, in .venv/duckdb-<version>: first on PYTHONPATH, it takes the place of the
installed one in a process of its own.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from tests.support.docs_commands import ROOT, blocks
from tests.support.rows import write

pytestmark = pytest.mark.process
OLDEST = "1.5.5"
STORE_TESTS = ["tests/store/test_store.py", "tests/store/test_maintain.py", "tests/store/test_read_only.py"]
NOT_OF_DUCKDB = (
    "killed or first_at_the_same_time or second_writer or another_writer or running_writer or blob or wrong_options or layout"
    " or who_made_it or newer_program or nothing_names or dry_run or content_versions or disk or root_is_named or unpickled"
    " or read_only_for_their_owner or every_table_has or description"
    " or s3 and not (own_questions or warehouse or frames)"
)
"""Tests that ask DuckDB nothing, or nothing particular: locks, writers, disks, other processes. It reads S3 through Python's
files: three tests that read rows there say whether it does.
"""
FOLDER = Path(sys.prefix) / f"duckdb-{OLDEST}"


@pytest.fixture(autouse=True)
def _installed():
    if not (FOLDER / "duckdb").is_dir():
        pytest.skip(
            f"DuckDB {OLDEST} is not in {FOLDER}: `make test` puts it there, or "
            f"pip install --no-deps --target {FOLDER} duckdb=={OLDEST}"
        )


def with_oldest(code, *arguments):
    """Runs Python code in a process that has the oldest DuckDB; what it printed."""
    checked = f"import duckdb, sys\nassert duckdb.__version__ == {OLDEST!r}, duckdb.__version__\n{code}"
    found = subprocess.run(
        [sys.executable, "-c", checked, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}"},
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


_READ = """
import json
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    tables = [row[0] for row in connection.sql("select view_name from duckdb_views() where not internal").fetchall()]
    print(json.dumps([tables, connection.sql("select sum(value) from mechanism_values").fetchall()[0][0]]))
"""


def read(path):
    with duckdb.connect(path, read_only=True) as connection:
        names = connection.sql("select view_name from duckdb_views() where not internal").fetchall()
        return [row[0] for row in names], connection.sql("select sum(value) from mechanism_values").fetchall()[0][0]


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    write(made, value=1.5)
    return made


def test_the_oldest_is_the_one_that_is_promised_and_the_newest_is_another():
    assert f'"duckdb>={OLDEST},' in (ROOT / "pyproject.toml").read_text()
    assert re.search(rf"^OLDEST_DUCKDB := {re.escape(OLDEST)}$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert duckdb.__version__ != OLDEST


@pytest.mark.slow
def test_the_tests_of_the_store_pass_with_the_oldest():
    """Without conftest.py and the checks of shapes: they load PyTorch and have nothing to do with DuckDB."""
    options = ["-q", "--noconftest", "-p", "tests.support.stores", "--override-ini=addopts=", "-p", "no:cacheprovider"]
    options += ["-k", f"not ({NOT_OF_DUCKDB})"]
    code = f"import pytest\nsys.exit(pytest.main({[*STORE_TESTS, *options]}))"
    assert "[100%]" in with_oldest(code)


def test_the_oldest_reads_the_warehouse_of_the_newest(store):
    tables, total = json.loads(with_oldest(_READ, write_warehouse(store.root)))
    assert set(tables) >= set(TABLES)
    assert total == 3.0


def test_the_newest_reads_the_warehouse_of_the_oldest(store):
    code = "from mech_pipeline.store.reading.warehouse import write_warehouse\nprint(write_warehouse(sys.argv[1]))"
    tables, total = read(Path(with_oldest(code, store.root).splitlines()[0]))
    assert set(tables) >= set(TABLES)
    assert total == 3.0


def test_the_oldest_understands_every_query_of_the_documentation(store, tmp_path):
    """Against empty tables: syntax, functions and types; tests/whole/test_sql_docs.py runs them on real ones."""
    queries = tmp_path / "queries.json"
    queries.write_text(json.dumps([block.text for block in blocks("docs/sql.md", "sql")]))
    code = """
import json, pathlib
from mech_pipeline.store.reading.query import query
for sql in json.loads(pathlib.Path(sys.argv[2]).read_text()):
    query(sys.argv[1], sql)
print("understood")
"""
    assert "understood" in with_oldest(code, store.root, queries)
