"""Whatever is damaged is found; whatever is whole is kept; what is lost is named and can be made again."""

import os
import random
import subprocess
import sys
import threading

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.analysis import analysis
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.stages import makers
from mech_pipeline.pipeline.training import wanted as training_cells
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store import checksums, delta
from mech_pipeline.store.care import verify_tables
from mech_pipeline.store.care.contents import parquet_rows
from mech_pipeline.store.care.maintain import compact_runs
from mech_pipeline.store.care.references import named_blobs
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.files.open import damaged_files, existing_files
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.damage import flip
from tests.support.once import filled_once
from tests.support.tiny import spec_of, train


def fill(store: Store, runs: int = 3, steps: int = 20) -> None:
    """Values of several runs, one commit a run and half of the steps, and a blob a step."""
    for number in range(runs):
        for first in (0, steps // 2):
            at = list(range(first, first + steps // 2))
            run = [f"e.a.s{number}"] * len(at)
            blobs = [
                store.put_blob(f"checkpoints/run={run[0]}/step={step:08d}", "x.bin", os.urandom(300)) for step in at
            ]
            made = {"input_fingerprint": ["f"] * len(at), "data_version": ["d"] * len(at)}
            cells = {"run": [run[0]], "step": at}
            values = {
                "run": run,
                "step": at,
                "mechanism": ["m"] * len(at),
                "value": [0.5 * step for step in at],
                **made,
            }
            store.write("mechanism_values", values, replace=cells)
            rows = {
                "run": run,
                "step": at,
                "weights_sha256": ["w"] * len(at),
                "cursor": at,
                "uri": [blob.uri for blob in blobs],
                "bytes": [blob.bytes for blob in blobs],
                "sha256": [blob.sha256 for blob in blobs],
                **made,
            }
            store.write("checkpoints", rows, replace=cells)


@pytest.fixture(autouse=True)
def soon_recorded(monkeypatch):
    """Nobody else writes in these tests (but one), so the pause for a writer's record may be short."""
    monkeypatch.setattr(verify_tables, "_RECORD_SECONDS", 0.1)


@pytest.fixture
def filled(store):
    fill(store)
    return store


def append(store, rows):
    """What another program might do to the table."""
    options = store.files.delta_options
    write_deltalake(store.files.url("tables/mechanism_values"), rows, mode="append", storage_options=options)


def found(store):
    return verify_store(store.files)


def test_a_whole_store_is_whole(filled):
    whole = found(filled)
    assert whole.damage == []
    assert whole.orphans == []
    assert whole.checked > 60


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_is_found(store):
    """Every kind of file: data, log, checksum records, blobs, the mark. Locks hold nothing."""
    fill(store, runs=2, steps=4)
    names = [e.name for e in store.files.entries() if not e.name.startswith("locks/")]
    if store.root.startswith("s3://"):  # slower; the same code
        names = random.Random(0).sample(names, 10)
    for name in names:
        before = store.files.read(name)
        flip(store, name)
        assert name in " ".join(f"{f.name} {f.problem}" for f in found(store).damage), name
        store.files.write(name, before)
    assert found(store).damage == []


@pytest.mark.slow
def test_damage_anywhere_in_the_newest_log_is_found_and_never_an_error(store):
    """Deltalake opens some logs that JSON does not, and the other way round."""
    fill(store, runs=1, steps=2)
    name = delta.log_name("checkpoints", delta.latest_version(store.files, "checkpoints"))
    whole = store.files.read(name)
    for place in range(0, len(whole), 17 if not store.root.startswith("s3://") else 200):
        flip(store, name, place)
        assert name in {fault.name for fault in found(store).damage}, place
        store.files.write(name, whole)


def test_a_log_with_a_control_character_is_damage_in_words(store):
    """Deltalake reads it, JSON refuses it."""
    fill(store, runs=1, steps=2)
    name = delta.log_name("checkpoints", 1)
    store.files.write(name, store.files.read(name).replace(b'"operation"', b'"\x0fperation"', 1))
    assert [fault.name for fault in found(store).damage] == [name]
    with pytest.raises(MechError, match="version 1, cannot be read"):
        delta.table_version(store.files, "checkpoints", 1)
    with pytest.raises(MechError, match="version 1, cannot be read"):
        delta.commit_log(store.files, "checkpoints", 1)


def test_names_of_blobs_that_are_no_text_any_more_are_damage(store):
    """A flipped bit in a data file that leaves Parquet whole and a name of a blob broken UTF-8."""
    fill(store, runs=1, steps=2)
    name = next(e.name for e in store.files.entries("tables/checkpoints/run=e.a.s0"))
    rows = parquet_rows(store.files.read(name))
    broken = (
        pa.array([b"\xff" + uri.encode()[1:] for uri in rows["uri"].to_pylist()]).cast(pa.binary()).view(pa.string())
    )
    sink = pa.BufferOutputStream()
    pq.write_table(rows.set_column(rows.schema.get_field_index("uri"), "uri", broken), sink)
    store.files.write(name, sink.getvalue().to_pybytes())
    assert name in {fault.name for fault in found(store).damage}
    assert named_blobs(store.files, [name]) == set()


def test_a_hundred_flipped_bits_are_a_hundred_findings(filled):
    """Also where a damaged table can no longer name its blobs."""
    names = [e.name for e in filled.files.entries() if e.name.endswith((".parquet", ".bin"))]
    chosen = random.Random(0).sample(names, min(100, len(names)))
    for name in chosen:
        flip(filled, name)
    assert {f.name for f in found(filled).damage if f.kind == "corrupt"} == set(chosen)
    repair_store(filled.files, found(filled))
    assert found(filled).damage == []


def test_a_quick_look_counts_the_files_and_compares_their_sizes(filled):
    quick = verify_store(filled.files, quick=True)
    assert (quick.damage, quick.checked) == ([], found(filled).checked)
    flip(filled, next(e.name for e in filled.files.entries("tables/mechanism_values/run=e.a.s1")))
    assert verify_store(filled.files, quick=True).damage == [], "which it says"
    log = delta.log_name("mechanism_values", 1)
    filled.files.write(log, filled.files.read(log)[:-1])
    assert [fault.name for fault in verify_store(filled.files, quick=True).damage] == [log]


@pytest.mark.parametrize("left", [(), ("part",)], ids=["nothing is left", "its log is gone"])
def test_a_table_that_is_gone_is_missing_and_given_up(filled, left):
    """Its checksums remember that it was there."""
    lost = [e.name for e in filled.files.entries("tables/mechanism_values")]
    filled.files.remove([name for name in lost if not any(each in name for each in left)])
    for quick in (True, False):
        faults = verify_store(filled.files, quick=quick).damage
        assert [(fault.kind, fault.name) for fault in faults] == [("missing", "tables/mechanism_values")]
    assert left or faults[0].problem == "the table is gone; it had version 6"
    assert repair_store(filled.files, found(filled)).lost == ["mechanism_values: everything"]
    assert found(filled).damage == []
    fill(filled, runs=1)
    assert found(filled).damage == []


@pytest.mark.parametrize("fault", ["truncated", "deleted", "grown"])
def test_files_of_wrong_size_are_found(filled, fault):
    data = next(e.name for e in filled.files.entries("tables/mechanism_values/run=e.a.s1"))
    blob = next(e.name for e in filled.files.entries("blobs"))
    for name in (data, blob):
        content = filled.files.read(name)
        filled.files.remove([name])
        if fault != "deleted":
            filled.files.write(name, content[:-7] if fault == "truncated" else content + b"more")
    for quick in (True, False):
        assert {f.name for f in verify_store(filled.files, quick=quick).damage} == {data, blob}


def test_repair_keeps_what_is_whole_and_names_what_is_lost(filled):
    before = query(filled.root, "select * from mechanism_values where run <> 'e.a.s1' order by all").rows()
    data = next(e.name for e in filled.files.entries("tables/mechanism_values/run=e.a.s1"))
    flip(filled, data)
    done = repair_store(filled.files, found(filled))
    assert len(done.lost) == 1
    assert done.lost[0].startswith("mechanism_values: 10 rows of run e.a.s1, steps ")
    assert query(filled.root, "select * from mechanism_values where run <> 'e.a.s1' order by all").rows() == before
    assert query(filled.root, "select count(*) from mechanism_values where run = 'e.a.s1'").rows() == [(10,)]
    assert found(filled).damage == []
    assert filled.files.info(f"quarantine/{data}")


def test_a_file_without_checksum_is_recorded_if_it_reads_well(filled):
    """A writer killed between its commit and its record."""
    filled.files.remove([entry.name for entry in filled.files.entries("checksums/mechanism_values")])
    faults = found(filled).damage
    assert {f.kind for f in faults} == {"unrecorded"}
    assert repair_store(filled.files, verify_store(filled.files)).lost == []
    assert found(filled).damage == []
    flip(filled, next(e.name for e in filled.files.entries("tables/mechanism_values/run=e.a.s0")))
    assert [f.kind for f in found(filled).damage] == ["corrupt"]


def test_a_damaged_log_is_survived(filled):
    """Damaged in the middle: the state is whole, only older versions are lost. Damaged beyond reading: named."""
    before = query(filled.root, "select * from mechanism_values order by all").rows()
    name = delta.log_name("mechanism_values", 2)
    filled.files.write(name, filled.files.read(name).replace(b'"WRITE"', b'"WRITF"'))
    assert [f.role for f in found(filled).damage] == ["log"]
    done = repair_store(filled.files, found(filled))
    assert done.lost == []
    assert found(filled).damage == []
    assert query(filled.root, "select * from mechanism_values order by all").rows() == before
    fill(filled, runs=1)
    assert found(filled).damage == []
    last = delta.log_name("mechanism_values", delta.latest_version(filled.files, "mechanism_values"))
    filled.files.write(last, bytes(len(filled.files.read(last))))
    done = repair_store(filled.files, found(filled))
    assert done.lost == [], "the commit before it had written the same cells"
    assert found(filled).damage == []
    assert query(filled.root, "select * from mechanism_values order by all").rows() == before
    first = delta.log_name("mechanism_values", delta.versions(filled.files, "mechanism_values")[0])
    for name in [first, *(e.name for e in filled.files.entries("tables/mechanism_values/_delta_log"))]:
        filled.files.write(name, b"")
    assert repair_store(filled.files, found(filled)).lost == ["mechanism_values: everything"]
    assert found(filled).damage == []


@pytest.mark.parametrize("commits", [1, 2])
@pytest.mark.parametrize("way", ["deleted", "emptied", "folded"])
def test_lost_commits_are_undone_and_their_cells_taken_out(filled, commits, way):
    """Also where their records were folded into one; the next commits have their numbers again."""
    before = query(filled.root, "select * from mechanism_values order by all").rows()
    newest = delta.latest_version(filled.files, "mechanism_values")
    if way == "folded":
        checksums.fold(filled.files, "mechanism_values", lambda: [e.name for e in filled.files.entries("tables")])
    for version in range(newest, newest - commits, -1):
        filled.files.remove([delta.log_name("mechanism_values", version)])
        if way == "emptied":
            filled.files.write(delta.log_name("mechanism_values", version), b"")
    assert {f.name for f in found(filled).damage} >= {delta.log_name("mechanism_values", newest)}
    lost = repair_store(filled.files, found(filled)).lost
    assert lost == [f"mechanism_values: run e.a.s2, steps {20 - 10 * commits} to 19"]
    assert found(filled).damage == []
    left = query(filled.root, "select count(*) from mechanism_values where run = 'e.a.s2'").rows()
    assert left == [(20 - 10 * commits,)]
    fill(filled)
    assert query(filled.root, "select * from mechanism_values order by all").rows() == before
    assert found(filled).damage == []


def test_a_lost_compaction_loses_no_row(filled):
    before = query(filled.root, "select * from mechanism_values order by all").rows()
    compact_runs(filled, ["e.a.s0"])
    newest = delta.latest_version(filled.files, "mechanism_values")
    filled.files.remove([delta.log_name("mechanism_values", newest)])
    assert repair_store(filled.files, found(filled)).lost == []
    assert found(filled).damage == []
    assert query(filled.root, "select * from mechanism_values order by all").rows() == before


def test_rows_that_are_lost_take_the_cells_they_are_part_of_with_them(local_store):
    """`ledger_tokens` is asked for by few, so nobody would miss its rows: its windows are accounted for again."""
    made = {"input_fingerprint": ["f"], "data_version": ["d"]}
    for run in ("r", "s"):
        for step in (1, 2):
            cell = {"run": [run], "step": [step]}
            example = {"mechanism": ["m"], "update_step": [0], "example_id": ["e"], "value": [1.0]}
            account = example | {"term": ["example"], "component": ["all"], "value_later": [0.0]}
            local_store.write("ledger", cell | account | made, replace=cell)
            tokens = example | {"meaning": ["target"], "token_position": [1]}
            local_store.write("ledger_tokens", cell | tokens | made, replace=cell)
    flip(local_store, next(e.name for e in local_store.files.entries("tables/ledger_tokens/run=r")))
    repair_store(local_store.files, found(local_store))
    sql = "select run, step from ledger order by all"
    assert len(query(local_store.root, sql)) == 3
    newest = delta.latest_version(local_store.files, "ledger_tokens")
    local_store.files.remove([e.name for e in local_store.files.entries("tables/ledger_tokens")])
    assert newest > 0
    repair_store(local_store.files, found(local_store))
    assert query(local_store.root, sql).rows() == []
    assert found(local_store).damage == []


def test_repeated_keys_are_found_and_taken_out(filled):
    rows = query(filled.root, "select * from mechanism_values where run = 'e.a.s0' and step = 3")
    append(filled, rows)
    faults = found(filled).damage
    assert {f.role for f in faults} == {"keys", "data"}  # and the foreign commit has no checksum
    done = repair_store(filled.files, verify_store(filled.files))
    assert done.lost == ["mechanism_values: run e.a.s0, step 3"]
    assert query(filled.root, "select count(*) from mechanism_values where run = 'e.a.s0'").rows() == [(19,)]
    assert found(filled).damage == []


def test_rows_that_break_the_description_are_found(filled):
    rows = query(filled.root, "select * from mechanism_values where run = 'e.a.s0' and step = 3")
    broken = rows.with_columns(pl.lit(float("nan")).alias("value"), pl.lit(99, pl.Int32).alias("step"))
    append(filled, broken)
    faults = [f for f in found(filled).damage if f.kind == "corrupt"]
    assert [f.problem.split(";")[0] for f in faults] == ["column value has values that are not finite"]


def test_orphans_are_counted_and_are_no_damage(filled):
    filled.put_blob("checkpoints/run=e.a.s0/step=00000001", "x.bin", b"a writer was killed here")
    assert found(filled).damage == []
    assert len(found(filled).orphans) == 1


def analysed(store: Store, spec: RunSpec) -> None:
    """A really trained and analysed tiny run."""
    train(store, spec)
    analysis.analyse(OpenRun(store, spec), analysis_cells.OUTPUTS, spec.checkpoint_steps())


def test_lost_index_rows_of_whole_blobs_are_registered_again(store, folder):
    spec = filled_once(store, spec_of(), analysed).spec
    sql = "select * exclude (data_version) from {} order by all"
    before = {name: query(store.root, sql.format(name)).rows() for name in ("checkpoints", "gradients")}
    for name in before:
        for entry in list(store.files.entries(f"tables/{name}/run={spec.run}")):
            flip(store, entry.name, 40)
    done = repair_store(store.files, found(store))
    assert {name: query(store.root, sql.format(name)).rows() for name in before} == before
    assert any("whole files of checkpoints again" in line for line in done.lines)
    assert training_cells.missing_checkpoints(store, spec) == []
    assert not any(
        analysis_cells.pending(OpenRun(store, spec), analysis_cells.OUTPUTS, spec.checkpoint_steps()).values()
    )
    assert found(store).damage == []


def test_what_is_lost_is_made_again_and_nothing_else(store, folder):
    spec = filled_once(store, spec_of(), analysed).spec
    sql = "select * from {} order by all"
    names = ("training_metrics", "mechanism_values", "examples")
    before = {name: query(store.root, sql.format(name)).rows() for name in names}
    hashes = query(store.root, "select step, data_version from checkpoints order by step").rows()
    for name in names:
        under = f"tables/{name}" if name == "examples" else f"tables/{name}/run={spec.run}"
        flip(store, next(e.name for e in store.files.entries(under) if e.name.endswith(".parquet")), 40)
    done = repair_store(store.files, found(store), makers=makers())
    assert {line.split(":")[0] for line in done.lost} == {"training_run", "mechanism_values", "tokens"}
    analysed(store, spec)
    assert {name: query(store.root, sql.format(name)).rows() for name in names} == before
    assert query(store.root, "select step, data_version from checkpoints order by step").rows() == hashes
    assert found(store).damage == []


def test_a_store_is_verified_beside_a_running_writer(filled):
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            fill(filled, runs=1, steps=4)
            compact_runs(filled, ["e.a.s0"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            assert [f for f in found(filled).damage if f.kind != "unrecorded"] == []
    finally:
        stop.set()
        thread.join()
    assert found(filled).damage == []


@pytest.mark.process
def test_files_are_read_without_threads_that_outlive_the_interpreter():
    """A thread of Arrow's that lets go of a Python buffer after the interpreter's end aborts the process."""
    script = (
        "import io, os, polars as pl\n"
        "from mech_pipeline.store.care.contents import parquet_rows\n"
        "file = io.BytesIO(); pl.DataFrame({'uri': ['a', 'b'], 'step': [1, 2]}).write_parquet(file, use_pyarrow=False)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "assert parquet_rows(file.getvalue(), ['uri'])['uri'].to_pylist() == ['a', 'b']\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("change", ["gone", "flipped", "emptied", "cut"])
def test_a_store_without_a_whole_mark_is_still_one(filled, change):
    """It is not taken for a new store, and repair writes the mark."""
    before = query(filled.root, "select * from mechanism_values order by all").rows()
    mark = filled.files.read("store.json")
    filled.files.remove(["store.json"])
    if change == "flipped":
        filled.files.write("store.json", mark.replace(b'"layout": 2', b'"layout": 3'))
    elif change != "gone":
        filled.files.write("store.json", mark[:-5] if change == "cut" else b"")
    for act in (lambda: Store(filled.root), lambda: existing_files(filled.root)):
        with pytest.raises(MechError, match="store.json is (gone|damaged).*mech verify --repair"):
            act()
    assert [f.name for f in found(filled).damage] == ["store.json"]
    assert repair_store(damaged_files(filled.root), found(filled)).lines == ["wrote store.json again"]
    assert found(filled).damage == []
    assert query(filled.root, "select * from mechanism_values order by all").rows() == before
