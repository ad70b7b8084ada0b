"""The store: whole or not at all, one writer a cell, read-only SQL, and a clear word when something is wrong."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Cell, outdated, partition_version, stored_versions
from mech_pipeline.store.blobs import Blob, named_sha256
from mech_pipeline.store.reading import reading
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.rows import check_rows, content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from tests.support.rows import values, write, write_run

SQL_TYPES = {"string": "VARCHAR", "bool": "BOOLEAN", "int32": "INTEGER", "int64": "BIGINT", "float32": "FLOAT"}
SQL_TYPES |= {"float64": "DOUBLE", "uint64": "UBIGINT"}


def read(store, sql="select step, mechanism, value from mechanism_values order by all"):
    return query(store.root, sql).rows()


def test_a_write_replaces_its_cells_and_nothing_else(store):
    write(store, value=1.0)
    write(store, mechanism="other", value=5.0)
    write(store, steps=(2,), value=3.0)
    assert read(store) == [(1, "m", 1.0), (1, "other", 5.0), (2, "m", 3.0), (2, "other", 5.0)]


def test_writers_that_come_first_at_the_same_time_all_succeed(store):
    """They race to create the table: six threads at a barrier, five tables."""
    for table in range(5):
        fresh = Store(f"{store.root}/first-{table}")
        barrier = threading.Barrier(6)

        def come_first(step, fresh=fresh, barrier=barrier):
            barrier.wait()
            write(fresh, steps=(step,))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(come_first, range(6)))
        assert [row[0] for row in read(fresh)] == list(range(6))


def test_rows_outside_the_replaced_cells_are_refused_and_nothing_changes(store):
    write(store)
    with pytest.raises(ValueError, match=r"rows with step \[9\] lie outside"):
        store.write("mechanism_values", values(steps=(1, 9)), replace={"run": ["r"], "step": [1], "mechanism": ["m"]})
    assert [row[0] for row in read(store)] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": [float("nan"), 1.0]}, "value has values that are not finite"),
        ({"value": [None, 1.0]}, "value has 1 empty values"),
        ({"step": [1, 1]}, "1 rows repeat a key"),
        ({"extra": [1, 2]}, "missing or unknown"),
        ({name: [] for name in values()}, "refusing to write no rows"),
    ],
)
def test_rows_that_break_the_description_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_rows(TABLES["mechanism_values"], values() | change)


def test_every_table_has_a_unique_key_a_meaning_and_a_view(store):
    with connect(store.root) as connection:
        for table in TABLES.values():
            names = [column.name for column in table.shown_columns]
            assert len(set(names)) == len(names)
            assert set(table.keys) <= set(names)
            assert all(column.meaning.strip() for column in table.shown_columns)
            found = connection.execute(f"describe {table.name}").fetchall()
            assert [row[:2] for row in found] == [(c.name, SQL_TYPES[c.type]) for c in table.shown_columns]


def test_the_pipelines_own_questions_each_see_their_own_cut(store):
    ask = "select value from mechanism_values order by all"
    write(store, value=1.0)
    with reading(store.root, ["mechanism_values", "ledger"]) as before:
        write(store, value=2.0)
        with reading(store.root, ["mechanism_values"]) as after:
            assert after.execute(ask).fetchall() == [(2.0,), (2.0,)]
            with pytest.raises(duckdb.CatalogException):
                after.execute("select * from ledger")  # the other one's view
        assert before.execute(ask).fetchall() == [(1.0,), (1.0,)]
        assert before.execute("select * from ledger").fetchall() == []


def test_a_question_about_some_runs_opens_the_files_of_these_alone(store):
    for run in ("a", "b", "c"):
        write_run(store, run)
    sql = "select run, step, value from mechanism_values order by all"
    with store.reading("mechanism_values") as everything, store.reading("mechanism_values", of=["a", "c"]) as some:
        rows = everything.execute(sql).fetchall()
        assert {run for run, *_ in rows} == {"a", "b", "c"}
        is_here = store.files.local_path("") is not None  # on S3 all files are listed, whatever is asked
        assert some.execute(sql).fetchall() == [row for row in rows if row[0] != "b" or not is_here]
        assert some.execute("select count(*) from mechanism_values where run in ('a', 'c')").fetchall() == [(4,)]
    with store.reading("mechanism_values", of=["z"]) as nobody:
        assert nobody.execute("select * from mechanism_values where run = 'z'").fetchall() == []


@pytest.mark.process
def test_threads_and_a_forked_process_ask_at_the_same_time(tmp_path):
    stores = [Store(tmp_path / str(number)) for number in range(8)]
    for number, one in enumerate(stores):
        write(one, value=float(number))

    def seen(one):
        with reading(one.root, ["mechanism_values"]) as connection:
            return connection.execute("select distinct value from mechanism_values").fetchall()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(seen, stores * 5)) == [[(float(number),)] for number in range(8)] * 5
    child = multiprocessing.get_context("fork").Process(
        target=lambda: os._exit(0 if seen(stores[3]) == [(3.0,)] else 1)
    )
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0


def test_promised_columns_are_there():
    """People's queries depend on these."""
    promised = {
        "runs": "run experiment arm seed fingerprint spec status",
        "mechanism_values": "run step mechanism value",
        "head_scores": "run step layer head detector value",
        "ledger": "run step mechanism update_step example_id component value",
        "influence": "run step mechanism update_step example_id value",
        "formation": "run mechanism step lower upper threshold censored",
        "examples": "example_id kind source document offset",
    }
    for name, columns in promised.items():
        assert set(columns.split()) <= {column.name for column in TABLES[name].columns}


@pytest.mark.parametrize(
    "sql",
    [
        "create table x as select 1",
        "drop view runs",
        "copy runs to 'x.csv'",
        "attach 'x.db'",
        "select 1; select 2",
        "install httpfs",
        "set threads=1",
    ],
)
def test_sql_that_does_more_than_read_is_refused(store, sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MechError, match="read-only"):
        query(store.root, sql)
    assert {path.name for path in tmp_path.iterdir()} <= {"store"}


def test_wrong_sql_says_what_to_do(store):
    with pytest.raises(MechError, match="mech tables"):
        query(store.root, "select nothing from nowhere")
    with pytest.raises(MechError, match='double quotes, for example "offset"'):
        query(store.root, "select offset from examples")


def test_warehouse_opens_as_a_plain_duckdb_file_from_anywhere(store, monkeypatch, tmp_path):
    write(store)
    monkeypatch.setenv("MECH_HOME", str(tmp_path))
    path = write_warehouse(store.root)
    monkeypatch.chdir("/")
    with duckdb.connect(str(path), read_only=True) as connection:
        store.files.make_readable(connection, {})  # what the extension httpfs does elsewhere
        assert connection.execute("select count(*) from mechanism_values").fetchall() == [(2,)]
        assert connection.execute("select count(*) from runs").fetchall() == [(0,)]
        # opening it does not block the next refresh, and a refresh does not disturb whoever has it open
        write(store, steps=(3,))
        write_warehouse(store.root)
        assert connection.execute("select count(*) from mechanism_values").fetchall() == [(2,)]
    assert not list(path.parent.glob(".warehouse*"))


def test_currency_is_decided_by_fingerprints(store):
    write(store, made_from="old")
    stored = stored_versions(store, "mechanism_values", "r")
    first, second, third = (Cell("mechanism_values", "r", step, "m") for step in (1, 2, 3))
    assert outdated(stored, {first: "old", second: "new", third: "new"}) == [second, third]
    assert partition_version(stored, 1) == partition_version(stored, 2)
    assert partition_version(stored, 9) is None


def test_content_versions_ignore_order_and_see_every_value():
    table = TABLES["mechanism_values"]
    base = {k: v for k, v in values().items() if k not in ("input_fingerprint", "data_version")}
    swapped = {k: v[::-1] for k, v in base.items()}
    assert content_version(table, base) == content_version(table, swapped)
    for column, other in (("value", [1.0, 1.0000000000000002]), ("mechanism", ["m", "n"]), ("step", [1, 3])):
        assert content_version(table, base | {column: other}) != content_version(table, base)
    event = {
        "run": ["r"],
        "mechanism": ["m"],
        "step": [None],
        "lower": [5],
        "upper": [None],
        "threshold": [1.0],
        "sustain": [3],
        "censored": [True],
    }
    formed = event | {"step": [0]}
    assert content_version(TABLES["formation"], event) != content_version(TABLES["formation"], formed)


def test_blobs_are_checked_when_read(store):
    blob = store.put_blob("x", "a.bin", b"content")
    assert store.get_blob(blob, "thing", "do this") == b"content"
    store.files.write(blob.uri, b"c0ntent")
    with pytest.raises(MechError, match="thing is corrupt.*do this"):
        store.get_blob(blob, "thing", "do this")
    with pytest.raises(MechError, match="thing is missing"):
        store.get_blob(Blob("blobs/none", 1, "0"), "thing", "do this")


def test_a_blob_never_takes_the_name_of_another_and_tells_its_own_hash(store):
    first, second = (store.put_blob("x", "a", b"same") for _ in range(2))
    assert first.uri != second.uri
    assert first.sha256 == hashlib.sha256(b"same").hexdigest()
    assert first.sha256.startswith(named_sha256(first.uri))


def test_a_newer_layout_is_refused(store):
    store.files.write("store.json", b'{"layout": 99}')
    for act in (Store, connect):
        with pytest.raises(MechError, match="has layout 99, this program reads layouts 1 to 2"):
            act(store.root)


def _hold(root, ready):
    with Store(root).lock("a", "do it"):
        ready.set()
        time.sleep(60)


@pytest.mark.process
def test_a_second_writer_is_refused_and_a_killed_one_frees_its_lock(store):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(store.root), ready))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(MechError, match=rf"cannot train run x: process {process.pid}( on \S+)? is writing it"):
            with store.lock("a", "train run x"):
                pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with store.lock("a", "train run x"):
        pass


_WRITER = """
import sys
from mech_pipeline.store.store import Store
store = Store(sys.argv[1])
for round in range(1000):
    for first in (0, 10):
        steps = list(range(first, first + 10))
        rows = {"run": ["r"] * 10, "step": steps, "mechanism": ["m"] * 10, "value": [float(round)] * 10,
            "input_fingerprint": ["f"] * 10, "data_version": ["d"] * 10}
        store.write("mechanism_values", rows, replace={"run": ["r"], "step": steps, "mechanism": ["m"]})
        print(round, first, flush=True)
"""


@pytest.mark.process
@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_whole_batches(store):
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(store.root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3 + attempt)]
        time.sleep(0.011 * attempt)
        process.kill()
        acknowledged = lines + process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()
        rows = read(store, "select step, value from mechanism_values order by step")
        batches = [{value for step, value in rows if first <= step < first + 10} for first in (0, 10)]
        assert all(len(batch) == 1 for batch in batches), "a batch is old or new, never mixed"
        assert [step for step, _ in rows] == list(range(20))
        last = {
            first: max(int(line.split()[0]) for line in acknowledged if line.split()[1:] == [str(first)])
            for first in (0, 10)
        }
        assert all(batch.pop() >= last[first] for batch, first in zip(batches, (0, 10), strict=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_named_and_what_was_stored_stays(tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("no permission to mount")
    try:
        store = Store(small / "store")
        write(store)
        with pytest.raises(MechError, match=r"the disk of .* is full; what was stored before is whole"):
            store.put_blob("x", "big", bytes(2_000_000))
        (small / "filler").write_bytes(bytes(1_048_576 - _used(small) - 16_384))
        with pytest.raises(MechError, match="is full"):
            for index in range(200):
                write(store, mechanism=f"m{index}", steps=tuple(range(50)))
        rows = read(store, "select count(*) from mechanism_values where mechanism = 'm'")
        assert rows == [(2,)]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
