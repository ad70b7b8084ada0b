"""Whatever happens to one file of a store: the same rows or an error in words, and a repair after which it can be read."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mech_pipeline.errors import MechError
from mech_pipeline.store import checked
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.care import verify_tables
from mech_pipeline.store.care.maintain import maintain_store
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.files.open import damaged_files
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.store import Store
from tests.support.damage import WAYS, damage, kind_of

TABLES = ("mechanism_values", "checkpoints", "ledger_tokens", "reports")
KINDS = ("log entry", "log checkpoint", "data file", "record", "blob", "page", "store.json", "warehouse.duckdb")
MADE = {"input_fingerprint": ["f"], "data_version": ["d"]}


def write(store: Store, run: str, step: int) -> None:
    cell = {"run": [run], "step": [step]}
    store.write("mechanism_values", cell | {"mechanism": ["m"], "value": [0.5 * step]} | MADE, replace=cell)
    example = {"mechanism": ["m"], "update_step": [0], "example_id": ["e"], "value": [1.0]}
    store.write("ledger_tokens", cell | example | {"meaning": ["target"], "token_position": [1]} | MADE, replace=cell)
    blob = store.put_blob(f"checkpoints/run={run}/step={step:08d}", "x.bin", f"{run} {step}".encode() * 40)
    named = {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256]}
    store.write("checkpoints", cell | {"weights_sha256": ["w"], "cursor": [0]} | named | MADE, replace=cell)


def write_report(store: Store) -> None:
    content = b"<html>a page</html>"
    blob = store.put_blob("reports/e", "report.html", content)
    cell = {"experiment": ["e"], "artifact": ["report.html"]}
    named = {"uri": [blob.uri], "bytes": [blob.bytes], "sha256": [blob.sha256]}
    store.write("reports", cell | named | MADE, replace=cell)
    store.files.write("reports/e.html", content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with log checkpoints and folded records, and commits and records after them."""
    store = Store(tmp_path_factory.mktemp("damage") / "store")
    for run in ("r", "s"):
        for step in range(3):
            write(store, run, step)
    maintain_store(store, timedelta(hours=1))
    write(store, "r", 3)
    write(store, "s", 2)
    write_report(store)
    write_warehouse(store.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_tables, "_RECORD_SECONDS", 0.0)
        patch.setattr(checked, "_PAUSES", (0.0,))
        assert verify_store(store.files).damage == []
        yield Path(store.root)


def rows(root: Path, table: str) -> list[tuple]:
    return query(root, f"select * from {table} order by all").rows()


def contents(root: Path, table: str) -> set[tuple]:
    """Rows without the names of blobs: a table that went back names an older blob of equal content."""
    named = "* exclude (uri)" if table in ("checkpoints", "reports") else "*"
    return set(query(root, f"select {named} from {table}").rows())


def blobs(root: Path) -> list[bytes]:
    found = query(root, "select uri, bytes, sha256 from checkpoints union all select uri, bytes, sha256 from reports")
    store = Store(root)
    return sorted(store.get_blob(Blob(*row), "a blob", "`mech verify --repair`") for row in found.rows())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), way=st.sampled_from(list(WAYS)), place=st.floats(0, 1, exclude_max=True))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_is_silent_and_all_can_be_repaired(whole, kind, data, way, place):
    names = sorted(e.name for e in Store(whole).files.entries() if kind_of(e.name) == kind)
    name, other = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    with tempfile.TemporaryDirectory(dir=whole.parent) as folder:
        root = Path(folder, "store")
        shutil.copytree(whole, root, copy_function=lambda source, target: Path(target).hardlink_to(source))
        damage(root, name, way, place, other)
        refused = []
        for look, truth in [
            *((lambda table=table: rows(root, table), rows(whole, table)) for table in TABLES),
            (lambda: blobs(root), blobs(whole)),
        ]:
            try:
                assert look() == truth
            except MechError as error:
                refused.append(error)
        found = verify_store(damaged_files(root))
        assert found.damage or not refused, refused
        if found.damage:
            repair_store(damaged_files(root), found)
        assert verify_store(damaged_files(root)).damage == []
        for table in TABLES:
            assert contents(root, table) <= contents(whole, table), "nothing is made up"
        assert set(blobs(root)) <= set(blobs(whole))
