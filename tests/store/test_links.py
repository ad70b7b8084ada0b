"""Parts of a store moved to another disk, with links in their place, are the store: checked, and never taken for lost."""

from datetime import timedelta
from pathlib import Path

import pytest

from mech_pipeline.store.care.maintain import remove_unnamed
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.store.test_verify import fill

SQL = "select * from checkpoints order by run, step"
LINKED = [
    ["blobs"],
    ["blobs/checkpoints"],
    ["blobs/checkpoints/run=e.a.s0", "blobs/checkpoints/run=e.a.s1"],
    ["tables"],
    ["tables/checkpoints"],
    ["tables/checkpoints/_delta_log"],
    ["checksums", "blobs"],
    ["blobs/checkpoints", "blobs"],
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "home" / "store")
    fill(found)
    return found


def move(store: Store, names: list[str], disk: Path) -> None:
    """Moves parts to the disk and leaves links."""
    for number, name in enumerate(names):
        place, target = Path(store.root, name), disk / str(number)
        disk.mkdir(exist_ok=True)
        place.rename(target)
        place.symlink_to(target)


def check_whole(store: Store, rows: object) -> None:
    """Nothing is damaged, and neither repair nor maintenance takes anything away."""
    found = verify_store(store.files)
    assert (found.damage, found.orphans) == ([], [])
    repair_store(store.files, found)
    remove_unnamed(store, timedelta(0))
    assert query(store.root, SQL).rows() == rows
    assert verify_store(store.files).damage == []


@pytest.mark.parametrize("names", LINKED, ids=" and ".join)
def test_linked_parts_are_whole(store, tmp_path, names):
    before = verify_store(store.files)
    rows = query(store.root, SQL).rows()
    move(store, names, tmp_path / "disk")
    found = verify_store(store.files)
    assert (found.checked, found.bytes) == (before.checked, before.bytes)
    check_whole(store, rows)


@pytest.mark.parametrize(
    "single", ["blobs/**/x.bin", "tables/checkpoints/**/*.parquet", "tables/runs/_delta_log/*.json"]
)
def test_a_linked_file_is_whole(store, tmp_path, single):
    rows = query(store.root, SQL).rows()
    names = [path.relative_to(store.root).as_posix() for path in Path(store.root).glob(single)]
    move(store, names[:1], tmp_path / "disk")
    check_whole(store, rows)


def test_links_that_lead_back_are_no_second_copy(store, tmp_path):
    rows = query(store.root, SQL).rows()
    root = Path(store.root)
    (root / "blobs" / "all").symlink_to(root)
    (root / "blobs" / "again").symlink_to(root / "blobs" / "checkpoints")
    (root / "blobs" / "nothing").symlink_to(tmp_path / "nowhere")
    (root / "blobs" / "itself").symlink_to(root / "blobs" / "itself")
    check_whole(store, rows)


def test_a_damaged_linked_file_is_found_and_only_it_is_lost(store, tmp_path):
    move(store, ["blobs"], tmp_path / "disk")
    bad = sorted((tmp_path / "disk").rglob("x.bin"))[0]
    bad.chmod(0o644)
    bad.write_bytes(bad.read_bytes()[:-1])
    found = verify_store(store.files)
    assert [Path(finding.name).name for finding in found.damage] == ["x.bin"]
    before = len(query(store.root, SQL))
    repair_store(store.files, found)
    assert len(query(store.root, SQL)) == before - 1
    assert verify_store(store.files).damage == []
