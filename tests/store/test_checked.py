"""A reader gets what was written, or an error that names the file and the command that mends it."""

import shutil
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.store import checked, checksums, delta
from mech_pipeline.store.care.compaction import compact
from mech_pipeline.store.care.maintain import maintain_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.query import named_tables, query
from tests.support.damage import flip

TABLE = "mechanism_values"
SQL = f"select * from {TABLE} order by all"


def write(store, step, value=0.5, table=TABLE):
    row = {"run": ["r"], "step": [step], "input_fingerprint": ["f"], "data_version": ["d"], "value": [value]}
    row |= {"mechanism": ["m"]} if table == TABLE else {"metric": ["loss_nats"]}
    return store.write(table, row, replace={"run": ["r"], "step": [step]})


@pytest.fixture
def filled(store):
    """Two tables of five versions; the older copy of the first, as it was at version 3, lies beside the store."""
    for step in range(4):
        write(store, step)
        write(store, step, table="training_metrics")
        if step == 2 and not store.root.startswith("s3://"):
            shutil.copytree(Path(store.root, "tables", TABLE), Path(store.root).parent / "older")
    return store


def last_log(store, back=0):
    return delta.log_name(TABLE, delta.latest_version(store.files, TABLE) - back)


def data_file(store):
    return next(e.name for e in store.files.entries(f"tables/{TABLE}/run=r"))


def remove_under(store, folder):
    store.files.remove([entry.name for entry in store.files.entries(folder)])
    return folder


def rewritten(store, name, change):
    content = store.files.read(name)
    store.files.remove([name])
    store.files.write(name, change(content))
    return name


def removed(store, *names):
    store.files.remove(names)
    return names[-1]


def older_copy(store):
    lost = last_log(store)
    shutil.rmtree(Path(store.root, "tables", TABLE))
    shutil.copytree(Path(store.root).parent / "older", Path(store.root, "tables", TABLE))
    return lost


def begin_anew(store):
    """What a new process knows. On S3 a process that has read a version's log does not read it again (docs/limits.md)."""
    if store.root.startswith("s3://"):
        checked._tables.clear()
        delta._table_version.cache_clear()


LOGS = {
    "the last log entry is emptied": lambda s: rewritten(s, last_log(s), lambda c: b""),
    "the last log entry is cut at a line": lambda s: rewritten(s, last_log(s), lambda c: c[: c.index(b"\n") + 1]),
    "the last log entry is gone": lambda s: removed(s, last_log(s)),
    "the last two log entries are gone": lambda s: removed(s, last_log(s), last_log(s, 1)),
    "a log entry in the middle is gone": lambda s: removed(s, last_log(s, 2)),
    "a log entry is another's": lambda s: rewritten(s, last_log(s), lambda c: s.files.read(last_log(s, 1))),
    "the log is gone": lambda s: remove_under(s, f"tables/{TABLE}/_delta_log"),
    "the table is gone": lambda s: remove_under(s, f"tables/{TABLE}"),
    "the table is an older copy": older_copy,
}
DATA = {
    "a data file is gone": lambda s: removed(s, data_file(s)),
    "a data file is cut": lambda s: rewritten(s, data_file(s), lambda c: c[:-3]),
    "a data file is emptied": lambda s: rewritten(s, data_file(s), lambda c: b""),
}


@pytest.mark.parametrize("fault", [*LOGS, *DATA])
def test_damage_is_an_error_that_names_it(filled, fault):
    """For whoever asks; writers do not build on a damaged log; and other tables answer."""
    if fault == "the table is an older copy" and filled.root.startswith("s3://"):
        pytest.skip("the older copy lies in a folder")
    name = (LOGS | DATA)[fault](filled)
    begin_anew(filled)
    for act in (lambda: query(filled.root, SQL), lambda: filled.reading(TABLE).__enter__()):
        with pytest.raises(MechError, match="mech verify --repair") as refused:
            act()
        assert name in str(refused.value) or f"table {TABLE} is gone" in str(refused.value)
    if fault in LOGS:
        with pytest.raises(MechError, match="mech verify --repair"):
            write(filled, 9)
    assert query(filled.root, "select count(*) from training_metrics").rows() == [(4,)]
    assert verify_store(filled.files).damage


@pytest.mark.parametrize("seen", [False, True], ids=["a new process", "one that has read it"])
def test_a_flipped_bit_is_an_error_that_names_the_file(local_store, seen):
    for step in range(4):
        write(local_store, step)
    if seen:
        query(local_store.root, SQL)
    for name in (data_file(local_store), last_log(local_store)):
        whole = local_store.files.read(name)
        flip(local_store, name)
        with pytest.raises(MechError, match=f"{name} of table {TABLE} is damaged.*mech verify --repair"):
            query(local_store.root, SQL)
        local_store.files.write(name, whole)
    assert len(query(local_store.root, SQL)) == 4


def test_a_damaged_row_is_not_compacted_into_a_whole_file(local_store):
    for step in range(4):
        write(local_store, step)
    flip(local_store, data_file(local_store))
    with pytest.raises(MechError, match="is damaged"):
        compact(local_store, TABLE, "r")


def test_what_a_killed_writer_did_not_record_is_read(filled):
    """Also while its log entry is not recorded; a log entry that is none is not."""
    before = query(filled.root, SQL)
    filled.files.remove(checksums.record_names(filled.files, TABLE)[-1:])
    assert query(filled.root, SQL).equals(before)
    rewritten(filled, last_log(filled), lambda content: b"")
    begin_anew(filled)
    with pytest.raises(MechError, match="its log is empty"):
        query(filled.root, SQL)


@pytest.mark.parametrize("change", ["flipped", "another commit's", "emptied"])
def test_a_damaged_record_stops_no_reader_and_is_named(filled, change):
    before = query(filled.root, SQL)
    name, other = checksums.record_names(filled.files, TABLE)[-2:]
    if change == "flipped":
        flip(filled, name)
    else:
        rewritten(filled, name, lambda content: b"" if change == "emptied" else filled.files.read(other))
    assert query(filled.root, SQL).equals(before)
    write(filled, 9)
    assert name in {fault.name for fault in verify_store(filled.files).damage}


def test_contents_are_read_once_a_process(local_store, monkeypatch):
    for step in range(4):
        write(local_store, step)
    read, original = [], checked._sha256
    monkeypatch.setattr(checked, "_sha256", lambda files, name: (read.append(name), original(files, name))[1])
    for _ in range(3):
        query(local_store.root, SQL)
    assert len(read) == len(set(read)) == 4
    write(local_store, 9)
    query(local_store.root, SQL)
    assert len(read) == 5


def test_a_query_opens_what_it_names():
    assert named_tables("select 1") == []
    assert named_tables("select * from \"LEDGER\", query_table('runs')") == ["ledger", "runs"]
    assert named_tables("with a as (from responsible) from a") == ["formation", "ledger"]
    assert named_tables("select * from duckdb_views()") is None
    assert named_tables("show tables") is None


def test_a_wrong_name_is_compared_with_all_tables(local_store):
    write(local_store, 1)
    with pytest.raises(MechError, match="Did you mean"):
        query(local_store.root, "select * from mechanism_value")
    assert query(local_store.root, "select count(*) from snapshot").rows() == [(1,)]


def test_an_older_version_is_checked_too(local_store):
    for step in range(4):
        write(local_store, step)
    flip(local_store, delta.log_name(TABLE, 1))
    with pytest.raises(MechError, match="is damaged"), connect(local_store.root, [TABLE], versions={TABLE: 2}):
        pass


@pytest.mark.slow
def test_readers_see_no_damage_beside_writers_and_maintenance(local_store):
    """Records are folded, log checkpoints come, files are compacted: whatever a look meets, it is no fault."""
    stop, faults = threading.Event(), []
    write(local_store, 0)

    def work() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            write(local_store, step % 7, step)

    def tidy() -> None:
        while not stop.is_set():
            with suppress(MechError):  # written meanwhile
                compact(local_store, TABLE, "r")
            maintain_store(local_store, timedelta(hours=1))

    threads = [threading.Thread(target=each) for each in (work, work, tidy)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            checked._tables.clear()
            query(local_store.root, SQL)
    except MechError as error:
        faults.append(error)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert verify_store(local_store.files).damage == []
