"""Asking the store changes nothing and reaches nothing else, whatever the SQL says; faults are named in a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store


def write(store, steps=(1, 2)):
    count = len(steps)
    rows = {"run": ["r"] * count, "step": list(steps), "mechanism": ["m"] * count, "value": [1.0] * count}
    rows |= {"input_fingerprint": ["f"] * count, "data_version": ["d"] * count}
    return store.write("mechanism_values", rows, replace={"run": ["r"], "step": list(steps)})


def contents(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    write(made)
    return made


WRITES = [
    "copy (select 1) to '{free}'",
    "copy (select 1) to '{live}'",
    "copy (select 1) to '{live}' (use_tmp_file false)",
    "explain analyze copy (select 1) to '{live}' (use_tmp_file false)",
    "explain (analyze) copy (select 1) to '{live}' (use_tmp_file false)",
    "explain /* select */ analyze copy (select 1) to '{live}' (use_tmp_file false)",
    "/* select */ copy (select 1) to '{live}' (use_tmp_file false)",
    "with x as (select 1) insert into runs select * from x",
    "insert into mechanism_values values (1)",
    "delete from mechanism_values",
    "update mechanism_values set value = 0",
    "export database '{free}'",
    "attach '{free}' as other",
    "prepare p as copy (select 1) to '{live}' (use_tmp_file false)",
    "select 1; copy (select 1) to '{free}'",
    "install httpfs",
    "load '{free}'",
    "set enable_external_access = true",
    "reset lock_configuration",
    "checkpoint",
    "",
]


@pytest.mark.parametrize("sql", WRITES)
def test_sql_that_would_write_is_refused_and_nothing_changes(store, tmp_path, sql):
    live = next(e.name for e in store.files.entries("tables/mechanism_values/run=r"))
    before = contents(tmp_path)
    with pytest.raises(MechError):
        query(store.root, sql.format(free=tmp_path / "free", live=store.files.url(live)))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{free}'",
        "copy (select 1) to '{live}'",
        "export database '{free}'",
        "attach '{free}' as other",
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('{mark}')",
        "select * from glob('/etc/*')",
        "set enable_external_access = true",
        "set allowed_paths = ['/']",
        "insert into mechanism_values select * from mechanism_values",
    ],
)
def test_a_connection_reaches_the_stores_rows_and_no_other_file(store, tmp_path, sql):
    live = next(e.name for e in store.files.entries("tables/mechanism_values/run=r"))
    before = contents(tmp_path)
    with connect(store.root) as connection, pytest.raises(duckdb.Error):
        names = {"free": tmp_path / "free", "live": store.files.url(live), "mark": store.files.url("store.json")}
        connection.sql(sql.format(**names)).fetchall()
    assert contents(tmp_path) == before


def test_an_open_connection_may_use_other_files_if_asked_for(store, tmp_path):
    (tmp_path / "mine.csv").write_text("step,label\n1,first\n")
    with connect(store.root, external=True) as connection:
        joined = f"select label, value from mechanism_values join '{tmp_path}/mine.csv' using (step)"
        assert connection.sql(joined).fetchall() == [("first", 1.0)]
        connection.sql(f"copy ({joined}) to '{tmp_path}/out.parquet'")
    assert (tmp_path / "out.parquet").is_file()


def test_frames_come_out_as_polars_and_pandas(store):
    with connect(store.root) as connection:
        sql = "select step, value from mechanism_values order by step"
        assert connection.sql(sql).pl()["step"].to_list() == [1, 2]
        assert connection.sql(sql).df()["value"].tolist() == [1.0, 1.0]
        connection.execute("create view mine as select max(step) as last from mechanism_values")
        assert connection.sql("select last from mine").fetchall() == [(2,)]
        assert connection.sql("select version, rows from snapshot where \"table\" = 'mechanism_values'").fetchall() == [
            (1, 2)
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_stored_files_are_read_only_for_their_owner(store, tmp_path):
    for entry in store.files.entries("tables/mechanism_values/run=r"):
        assert Path(store.root, entry.name).stat().st_mode & 0o222 == 0
    blob = store.put_blob("x", "a", b"content")
    assert Path(store.root, blob.uri).stat().st_mode & 0o222 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_disk_is_named_reading_works_and_nothing_changes(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no permission to mount")
    try:
        store = Store(disk / "store")
        write(store)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = contents(disk)
        for act in (
            lambda: write(store, (3,)),
            lambda: store.put_blob("x", "a", b"content"),
            lambda: Store(disk / "another"),
            lambda: store.lock("training", "train").__enter__(),
        ):
            with pytest.raises(MechError, match="cannot be written → check its permissions, or set MECH_STORE"):
                act()
        assert contents(disk) == before
        assert query(store.root, "select count(*) from mechanism_values").rows() == [(2,)]
        assert verify_store(store.files).damage == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("/etc/passwd", "is not a folder → set MECH_STORE to one"),
        ("gs://bucket/x", "is neither a folder nor s3://bucket/prefix"),
        ("s3://", "names no bucket → write s3://bucket/prefix"),
    ],
)
def test_a_wrong_root_is_named(root, message):
    with pytest.raises(MechError, match=message):
        Store(root)


def test_nothing_is_ever_unpickled():
    """No module of the program can: neither pickle nor torch.load nor numpy's allow_pickle is named anywhere.

    But for one, which other people's checkpoints need: it runs in a process of its own and calls only what it lists
    (tests/exchange/test_neox.py).
    """
    import mech_pipeline

    package = Path(mech_pipeline.__file__).parent
    apart = package / "exchange" / "suites" / "converting" / "unpickle.py"
    assert apart.exists()
    for path in {*package.rglob("*.py"), *(package.parent / "assets").glob("*.py")} - {apart}:
        text = path.read_text()
        for word in ("import pickle", "torch.load(", "allow_pickle=True", "dill", "joblib.load"):
            assert word not in text, f"{path.name}: {word}"


@pytest.mark.process
def test_wrong_options_of_the_command_are_named(store):
    for arguments, message in (
        (["sql", "select 1", "--version", "ledger"], "a table and a number are needed"),
        (["sql", "select 1", "--at", "yesterday"], "'yesterday' is not a time"),
        (["sql", "select 1", "--version", "nothing=1"], "there is no table 'nothing'"),
        (["history", "nothing"], "there is no table 'nothing'"),
        (["history", "ledger"], "table ledger was never written"),
        (["maintain", "--retention-days", "0"], "a retention of 0:00:00 would take files"),
    ):
        found = subprocess.run(
            [sys.executable, "-m", "mech_pipeline.commands.app", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "MECH_STORE": store.root},
        )
        assert found.returncode == 1, arguments
        assert message in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1
