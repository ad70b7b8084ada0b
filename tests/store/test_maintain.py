"""Maintenance makes a store small and fast, and takes nothing from a live version, a reader or a running writer."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from mech_pipeline.errors import MechError
from mech_pipeline.store import checksums, delta
from mech_pipeline.store.blobs import is_there
from mech_pipeline.store.care import compaction
from mech_pipeline.store.care.maintain import compact_runs, maintain_store, remove_unnamed
from mech_pipeline.store.care.migrate import migrate_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.layout import layout_of
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.history import table_history
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

WEEK = timedelta(days=7)


def values(run, steps, value):
    count = len(steps)
    return {
        "run": [run] * count,
        "step": list(steps),
        "mechanism": ["m"] * count,
        "value": [float(value)] * count,
        "input_fingerprint": ["f"] * count,
        "data_version": ["d"] * count,
    }


def write(store, run, steps, value):
    return store.write("mechanism_values", values(run, steps, value), replace={"run": [run], "step": list(steps)})


def influence(run, step, count, seed=0):
    random = np.random.default_rng(seed)
    ids = [f"{number:016x}" for number in random.integers(0, 2**62, count)]
    return {
        "run": [run] * count,
        "step": [step] * count,
        "mechanism": ["m"] * count,
        "update_step": np.arange(count) // 32,
        "example_id": ids,
        "value": random.standard_normal(count).astype(np.float32),
        "input_fingerprint": ["f"] * count,
        "data_version": ["d"] * count,
    }


def finish(store, *runs):
    for run in runs:
        row = {
            "run": [run],
            "experiment": ["e"],
            "arm": ["a"],
            "seed": [0],
            "fingerprint": ["f"],
            "spec": ["{}"],
            "status": ["complete"],
            "device": ["cpu"],
            "versions": ["{}"],
            "caveats": [""],
            "input_fingerprint": ["f"],
            "data_version": ["d"],
        }
        store.write("runs", row, replace={"run": [run]})


def age(store, days, folder=""):
    """As if everything had been written that long ago: file times and the times in the log."""
    past = time.time() - days * 86400
    for entry in list(store.files.entries(folder)):
        path = Path(store.root, entry.name)
        if "/_delta_log/" in entry.name and entry.name.endswith(".json"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                for action in line.values():
                    for key in {"timestamp", "modificationTime", "deletionTimestamp", "createdTime"} & set(action):
                        if isinstance(action[key], int):
                            action[key] -= days * 86_400_000
            path.chmod(0o644)
            path.write_text("\n".join(json.dumps(line) for line in lines))
            record_again(store, entry.name)
        os.utime(path, (past, past))


def record_again(store, name):
    """Keeps the checksum of a file as it is now, in the record that has one of it."""
    table = name.split("/")[1]
    for record in checksums.record_names(store.files, table):
        sums = checksums.parsed(record, table, store.files.read(record))
        if name in sums:
            sums[name] = checksums.checksum(store.files.read(name))
            kind = Path(record).stem[20:]
            checksums.record(store.files, table, checksums.version_of(record), sums, kind=kind)


def everything(store, table="mechanism_values"):
    return query(store.root, f"select * from {table} order by all")


def test_a_finished_run_becomes_one_file_and_an_unfinished_one_stays(store):
    for run in ("done", "open"):
        for step in range(6):
            write(store, run, [step], step)
    finish(store, "done")
    before = everything(store)
    lines = compact_runs(store, ["done"])
    assert "compacted mechanism_values of done: 6 files into 1" in lines
    assert everything(store).equals(before)
    files = delta.table_version(
        store.files, "mechanism_values", delta.latest_version(store.files, "mechanism_values")
    ).files
    assert sorted(file.partition["run"] for file in files) == ["done"] + ["open"] * 6
    assert compact_runs(store, ["done"]) == []
    assert verify_store(store.files).damage == []
    write(store, "done", [3], 33.0)
    assert query(store.root, "select step, value from mechanism_values where run = 'done' order by step").rows()[3] == (
        3,
        33.0,
    )


def test_what_another_writer_does_during_a_compaction_is_kept(store, monkeypatch):
    """Replaced and added rows of the same run stop the compaction; another run's rows do not."""
    for step in range(4):
        write(store, "r", [step], step)
    original = compaction._write

    def meanwhile(act):
        def wrapped(*arguments):
            rows = original(*arguments)
            act()
            return rows

        monkeypatch.setattr(compaction, "_write", wrapped)

    for act in (lambda: write(store, "r", [2], 22.0), lambda: write(store, "r", [9], 9.0)):
        meanwhile(act)
        with pytest.raises(MechError, match="is being written; it stays as it is"):
            compaction.compact(store, "mechanism_values", "r")
    assert [(r["step"], r["value"]) for r in everything(store).to_dicts()] == [(0, 0), (1, 1), (2, 22), (3, 3), (9, 9)]
    meanwhile(lambda: write(store, "other", [1], 1.0))
    assert compaction.compact(store, "mechanism_values", "r") == 5
    assert everything(store)["value"].to_list() == [1.0, 0.0, 1.0, 22.0, 3.0, 9.0]
    assert verify_store(store.files).damage == []
    assert verify_store(store.files).orphans == []


def test_extreme_rows_come_first_and_no_row_changes(store):
    for step in (1, 2):
        rows = influence("r", step, 30_000, step)
        store.write("influence", rows, replace={"run": ["r"], "step": [step]})
    before = everything(store, "influence")
    compaction.compact(store, "influence", "r")
    assert everything(store, "influence").equals(before)
    name = delta.table_version(store.files, "influence", delta.latest_version(store.files, "influence")).files[0].name
    first = pq.ParquetFile(pa.BufferReader(store.files.read(name))).read_row_group(0)["value"].to_numpy()
    ranked = np.sort(before["value"].to_numpy())
    extremes = [*ranked[: compaction.EXTREMES], *ranked[-compaction.EXTREMES :]]
    assert set(extremes) <= set(first)
    assert len(first) <= 8 * len(extremes), "whole blocks of eight rows move"
    assert (np.diff(first) <= 0).all()
    top = query(store.root, "select value from influence order by value desc limit 20")["value"].to_list()
    assert top == ranked[::-1][:20].tolist()


@pytest.mark.parametrize("same", [True, False])
def test_ties_and_few_rows_are_compacted_as_well(store, same):
    for step in (1, 2):
        rows = influence("r", step, 20_000 if same else 50)
        rows["value"] = np.zeros(len(rows["run"]), np.float32) if same else rows["value"]
        store.write("influence", rows, replace={"run": ["r"], "step": [step]})
    before = everything(store, "influence")
    compaction.compact(store, "influence", "r")
    assert everything(store, "influence").equals(before)


def test_old_versions_and_orphans_go_and_live_files_stay_however_old(local_store):
    finish(local_store, "r")
    for value in range(5):
        write(local_store, "r", [1, 2], value)
    orphan = local_store.put_blob("checkpoints/run=r/step=00000001", "x", b"killed before its row")
    replaced_now = everything(local_store)
    age(local_store, 30)
    write(local_store, "r", [2], 7.0)  # replaces, today, a file that is 30 days old: a reader may be on it
    lines = maintain_store(local_store, WEEK)
    assert any(line.startswith("vacuumed mechanism_values: 4 files") for line in lines)
    assert local_store.files.info(orphan.uri) is None
    assert everything(local_store)["value"].to_list() == [4.0, 7.0]
    version = delta.latest_version(local_store.files, "mechanism_values")
    versions = [
        row.version for row in table_history(local_store.files, "mechanism_values", 50) if row.readable and row.rows
    ]
    assert min(versions) < version, "the version before today's write can still be read"
    assert query(
        local_store.root, "select * from mechanism_values order by all", versions={"mechanism_values": 5}
    ).equals(replaced_now)
    with pytest.raises(
        MechError, match="version 2 of table mechanism_values can no longer be read: `mech maintain` removed"
    ):
        query(local_store.root, "select * from mechanism_values", versions={"mechanism_values": 2})
    assert verify_store(local_store.files).damage == []


def test_a_running_writers_files_stay(local_store):
    """Files that are not named yet but young, and blobs that only an older, readable version names."""
    finish(local_store, "r")
    young = local_store.put_blob("checkpoints/run=r/step=00000001", "x", b"its row comes in a second")
    blob = local_store.put_blob("checkpoints/run=r/step=00000002", "x", b"named by the version before")
    row = {
        "run": ["r"],
        "step": [2],
        "weights_sha256": ["w"],
        "cursor": [0],
        "input_fingerprint": ["f"],
        "data_version": ["d"],
    }
    row |= {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256]}
    local_store.write("checkpoints", row, replace={"run": ["r"], "step": [2]})
    age(local_store, 30, "blobs/checkpoints/run=r/step=00000002")
    other = local_store.put_blob("checkpoints/run=r/step=00000002", "x", b"trained again")
    row |= {"uri": [other.uri], "bytes": [other.bytes], "sha256": [other.sha256]}
    local_store.write("checkpoints", row, replace={"run": ["r"], "step": [2]})
    unnamed = Path(local_store.root, "tables/checkpoints/run=r/part-in-flight.parquet")
    unnamed.write_bytes(b"a writer is between its file and its commit")
    maintain_store(local_store, WEEK)
    assert unnamed.is_file()
    assert all(is_there(local_store.files, kept) for kept in (young, blob, other))


def test_what_nothing_names_is_removed_after_the_retention(store, monkeypatch):
    blob = store.put_blob("checkpoints/run=r/step=00000001", "x", b"killed before its row")
    assert remove_unnamed(store, WEEK) == []
    later = time.time() + 8 * 86_400
    monkeypatch.setattr("mech_pipeline.store.care.maintain.time.time", lambda: later)
    assert remove_unnamed(store, WEEK) == ["removed 1 files that nothing names, 0.0 MB"]
    assert not is_there(store.files, blob)


def test_a_dry_run_changes_nothing_and_too_short_a_retention_is_refused(store):
    finish(store, "r")
    for step in range(3):
        write(store, "r", [step], step)
    before = {entry.name: entry for entry in store.files.entries()}
    assert "compacted mechanism_values of r: 3 files into 1" in maintain_store(store, WEEK, dry_run=True)
    assert {entry.name: entry for entry in store.files.entries()} == before
    with pytest.raises(MechError, match="a retention of 0:00:00 would take files"):
        maintain_store(store, timedelta(0))


def test_maintenance_again_finds_nothing_to_do(store):
    finish(store, "r")
    for step in range(3):
        write(store, "r", [step], step)
    maintain_store(store, WEEK)
    assert maintain_store(store, WEEK) == ["nothing to do"]
    assert verify_store(store.files).damage == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_maintenance_drops_the_record_of_no_commit(store, monkeypatch, moment):
    """A commit that is made just before or just after the records of its table are read, to become one."""
    for step in range(3):
        write(store, "r", [step], step)
    read, fold = checksums.read_records, checksums.fold

    def reading(files, table):
        monkeypatch.setattr(checksums, "read_records", read)
        found = read(files, table) if moment == "after" else None
        write(store, "r", [9], 9.0)
        return found or read(files, table)

    def folding(*arguments):
        monkeypatch.setattr(checksums, "read_records", reading)
        return fold(*arguments)

    monkeypatch.setattr(checksums, "fold", folding)
    maintain_store(store, WEEK)
    version = delta.latest_version(store.files, "mechanism_values")
    assert delta.log_name("mechanism_values", version) in read(store.files, "mechanism_values").files
    assert checksums.newest_version(store.files, "mechanism_values") == version
    assert verify_store(store.files).damage == []


def test_results_can_be_read_as_they_were(store):
    first = write(store, "r", [1], 1.0)
    time.sleep(0.05)
    then = datetime.now(UTC)
    time.sleep(0.05)
    write(store, "r", [1], 2.0)
    finish(store, "r")
    sql = "select value from mechanism_values"
    assert query(store.root, sql).rows() == [(2.0,)]
    assert query(store.root, sql, at=then).rows() == [(1.0,)]
    assert query(store.root, sql, versions={"mechanism_values": first.version}).rows() == [(1.0,)]
    assert query(store.root, "select count(*) from runs", at=then).rows() == [(0,)]
    with pytest.raises(MechError, match="there is no table 'nothing'"):
        query(store.root, sql, versions={"nothing": 1})
    with pytest.raises(MechError, match=r"held nothing at 2020-01-01T00:00:00Z → `mech history runs`"):
        query(store.root, sql, at=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(MechError, match="table mechanism_values has no version 77: there are 0 to 2"):
        query(store.root, sql, versions={"mechanism_values": 77})


def test_every_commit_says_who_made_it(store):
    store = Store(store.root, dagster_run="the-run")
    made = store.write("mechanism_values", values("r", [1], 1.0), replace={"run": ["r"], "step": [1]}, code_version="7")
    newest = table_history(store.files, "mechanism_values", 1)[0]
    assert (newest.version, newest.rows, newest.content) == (made.version, 1, made.content)
    assert (newest.code_version, newest.dagster_run) == ("7", "the-run")
    assert newest.readable
    same = store.write("mechanism_values", values("r", [1], 1.0), replace={"run": ["r"], "step": [1]})
    other = store.write("mechanism_values", values("r", [1], 2.0), replace={"run": ["r"], "step": [1]})
    assert same.content == made.content != other.content
    assert delta.open_table(store.files, "mechanism_values").history(1)[0]["mech.content"] == other.content


def test_an_older_layout_is_read_and_writing_names_the_command_that_migrates(store):
    """As the first version of the program left one: another mark, no checksums, no provenance."""
    write(store, "r", [1, 2], 1.0)
    store.files.remove(["store.json", *(entry.name for entry in store.files.entries("checksums"))])
    store.files.write("store.layout", b"1")
    assert query(store.root, "select count(*) from mechanism_values").rows() == [(2,)]
    with pytest.raises(MechError, match="has layout 1, this program writes layout 2 → `mech migrate`"):
        Store(store.root)
    with connect(store.root) as connection:
        assert connection.sql("select count(*) from runs").fetchall() == [(0,)]
    migrate_store(store.files)
    assert layout_of(store.files) == 2
    write(Store(store.root), "r", [3], 1.0)
    assert query(store.root, "select count(*) from mechanism_values").rows() == [(3,)]
    assert verify_store(store.files).damage == []


def test_a_table_of_a_newer_program_is_refused_and_unchanged(store):
    write(store, "r", [1], 1.0)
    rows = everything(store).with_columns(pl.lit("x").alias("novelty"))
    options = store.files.delta_options
    write_deltalake(
        store.files.url("tables/mechanism_values"), rows, mode="append", schema_mode="merge", storage_options=options
    )
    version = delta.latest_version(store.files, "mechanism_values")
    for act in (lambda: everything(store), lambda: write(store, "r", [2], 2.0)):
        with pytest.raises(MechError, match=r"has columns that this program does not know \(novelty\)"):
            act()
    assert delta.latest_version(store.files, "mechanism_values") == version


def test_a_column_that_may_be_empty_is_added_to_an_older_table(store, monkeypatch):
    import dataclasses

    from mech_pipeline.store.tables.all import Column

    write(store, "r", [1], 1.0)
    table = TABLES["mechanism_values"]
    newer = dataclasses.replace(table, columns=(*table.columns, Column("note", "string", "a remark", nullable=True)))
    monkeypatch.setitem(TABLES, "mechanism_values", newer)
    assert query(store.root, "select step, note from mechanism_values").rows() == [(1, None)]
    rows = values("r", [2], 2.0) | {"note": ["new"]}
    store.write("mechanism_values", rows, replace={"run": ["r"], "step": [2]})
    assert query(store.root, "select step, note from mechanism_values order by step").rows() == [(1, None), (2, "new")]
    assert verify_store(store.files).damage == []
    needed = dataclasses.replace(newer, columns=(*newer.columns, Column("extra", "int32", "not optional")))
    monkeypatch.setitem(TABLES, "mechanism_values", needed)
    with pytest.raises(MechError, match="lacks the column extra: an older mech-pipeline wrote it"):
        query(store.root, "select 1 from mechanism_values")


@pytest.mark.slow
def test_a_cut_is_consistent_while_tables_are_written(store):
    """A row of `influence` is written after the row of `formation` it refers to: no cut shows it without that row."""
    import threading

    stop = threading.Event()

    def work() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            row = {"run": ["r"], "mechanism": ["m"], "step": [step], "lower": [0], "upper": [step], "threshold": [1.0]}
            row |= {"sustain": [1], "censored": [False], "input_fingerprint": ["f"], "data_version": ["d"]}
            store.write("formation", row, replace={"run": ["r"], "mechanism": ["m"]})
            store.write("influence", influence("r", step, 3, step), replace={"run": ["r"], "step": [step]})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        seen = set()
        for _ in range(40):
            with connect(store.root, ["formation", "influence"]) as connection:
                sql = "select (select max(step) from influence), (select max(step) from formation)"
                influenced, formed = connection.sql(sql).fetchall()[0]
                assert influenced is None or formed >= influenced
                seen.add((formed, influenced))
        assert len(seen) > 5
    finally:
        stop.set()
        thread.join()
