"""Whatever a store's folder or prefix is called, its own rows are read, or the name is refused in one line."""

import tempfile
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.errors import MechError
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.files.roots import s3_root
from mech_pipeline.store.reading import connect, reading
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.store import Store
from tests.support.rows import write

SQL = "select run, step, mechanism, value from mechanism_values order by step"
ROWS = [("r", 1, "m", 1.0), ("r", 2, "m", 1.0)]
NAMES = st.text(st.sampled_from("ab=*?[]%41#&;:'\"\\ ~{}|^é\n-."), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
WITH_MEANING = ["step=7", "run=x", "value=1", "*", "?", "a b", "#", "it's", "{a,b}", "~", "a;b:c", "ü", "-", '"']


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MECH_CACHE", str(tmp_path / "cache"))


def check(store_root: Path) -> None:
    """Every reader sees the rows that were written."""
    write(Store(store_root))
    assert query(store_root, SQL).rows() == ROWS
    assert query(store_root, f"select * from ({SQL}) where step = 2 and run = 'r'").rows() == ROWS[1:]
    with reading(store_root, ["mechanism_values"]) as connection:
        assert connection.execute(SQL).fetchall() == ROWS
    with connect(store_root, external=True) as connection:
        assert connection.execute(SQL).fetchall() == ROWS
    with duckdb.connect(str(write_warehouse(store_root)), read_only=True) as connection:
        assert connection.execute(SQL).fetchall() == ROWS


@pytest.mark.parametrize("name", WITH_MEANING)
def test_a_folder_that_means_something_to_a_reader_is_a_folder(tmp_path, name):
    """Beside it lies a store that a pattern would find, with other values."""
    for neighbour in ("a", "b", "x"):
        (tmp_path / neighbour / "store").mkdir(parents=True, exist_ok=True)
        write(Store(tmp_path / neighbour / "store"), value=2.0)
    check(tmp_path / name / "store")


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=2))
def test_any_folder_works_or_is_refused_when_it_is_opened(names):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).joinpath(*names, "store")
        refused = None
        try:
            Store(root)
        except MechError as error:
            refused = str(error)
        if refused is None:
            check(root)
        else:
            assert "\n" not in refused
            assert not root.exists()


def test_the_folder_above_a_link_is_not_taken_by_its_name(tmp_path):
    """`link/../store` lies beside what the link leads to."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    write(Store(tmp_path / "link" / ".." / "store"))
    assert query(tmp_path / "far" / "store", SQL).rows() == ROWS


def test_a_store_in_brackets_can_be_read_and_is_never_half_written(tmp_path):
    write(Store(tmp_path / "plain"))
    (tmp_path / "plain").rename(tmp_path / "run[1]")
    assert query(tmp_path / "run[1]", SQL).rows() == ROWS
    with pytest.raises(MechError, match="cannot be written where the character"):
        Store(tmp_path / "run[1]")


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("s3://bucket//prefix/", "s3://bucket/prefix"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a.b/c-d_e", "s3://bucket/a.b/c-d_e"),
    ],
)
def test_slashes_of_a_prefix_are_single(text, root):
    assert s3_root(text) == s3_root(root) == root


@pytest.mark.parametrize("prefix", ["p%20x", "a#b", "a?b", "[a]", "a*b", "step=5/x", "a\\b", "a/../b", "ü", "a\nb"])
def test_a_prefix_that_means_something_is_refused(prefix):
    with pytest.raises(MechError, match="cannot be in the prefix of a store") as refused:
        open_files(f"s3://bucket/{prefix}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9000", "localhost", "ftp://host", "http://", "http://host:port", "//host"]
)
def test_an_endpoint_that_is_no_address_is_refused(monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(MechError, match="AWS_ENDPOINT_URL is .*, which is no address → write http://"):
        open_files("s3://bucket/prefix")


@pytest.mark.process
@pytest.mark.parametrize("prefix", ["//twice//x", "/a b", "/it's", "/a+b,c", "/(a)@b"])
def test_prefixes_that_are_not_refused_work_on_a_server(s3_root, prefix):
    root = s3_root.rsplit("/", 2)[0] + prefix
    write(Store(root))
    assert query(root, SQL).rows() == ROWS
    assert [entry.name for entry in open_files(root).entries("checksums")]
