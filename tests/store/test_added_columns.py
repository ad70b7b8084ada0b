"""A store that was written before a column existed: it is read with the column's default, written on, and kept whole."""

import dataclasses
from dataclasses import replace

import pytest

from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.store import store as store_module
from mech_pipeline.store.care.compaction import compact
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

NEW = ("method", "component", "reliable", "weight", "standard_error")
KEY = {"run": ["r"], "step": [10], "mechanism": ["m"]}
EXACT = Cell("influence", "r", 10, "m", "adjoint")


def rows(count=3, **more):
    return {
        "run": ["r"] * count,
        "step": [10] * count,
        "mechanism": ["m"] * count,
        "update_step": list(range(count)),
        "example_id": [f"e{i}" for i in range(count)],
        "value": [float(i) for i in range(count)],
        "input_fingerprint": ["made"] * count,
        "data_version": ["held"] * count,
        **{name: [value] * count for name, value in more.items()},
    }


@pytest.fixture
def old_store(local_store, monkeypatch):
    """Influence as it was before it had methods."""
    table = TABLES["influence"]
    before = dataclasses.replace(
        table,
        columns=tuple(c for c in table.columns if c.name not in NEW),
        keys=("run", "step", "mechanism", "update_step", "example_id"),
        sort=("mechanism", "step", "update_step", "example_id"),
    )
    with monkeypatch.context() as older:
        older.setitem(store_module.TABLES, "influence", before)
        local_store.write("influence", rows(), replace=KEY)
    return Store(local_store.root)


def test_old_rows_read_as_the_exact_method_on_all_components(old_store):
    found = query(old_store.root, f"select distinct {', '.join(NEW)} from influence").rows()
    assert found == [("adjoint", "all", None, 1.0, None)]
    assert stored_versions(old_store, "influence", "r").keys() == {EXACT}


def test_new_rows_of_the_exact_method_replace_old_ones_and_those_of_others_do_not(old_store):
    other = rows(2, method="gradient_dot", component="all", reliable=None)
    old_store.write("influence", other, replace=KEY | {"method": ["gradient_dot"]})
    counts = "select method, count(*) from influence group by 1 order by 1"
    assert query(old_store.root, counts).rows() == [("adjoint", 3), ("gradient_dot", 2)]
    exact = rows(4, method="adjoint", component="all", reliable=True)
    old_store.write("influence", exact, replace=KEY | {"method": ["adjoint"]})
    assert query(old_store.root, counts).rows() == [("adjoint", 4), ("gradient_dot", 2)]
    assert stored_versions(old_store, "influence", "r").keys() == {EXACT, replace(EXACT, method="gradient_dot")}
    assert not verify_store(old_store.files).damage


def test_compaction_writes_the_default_down(old_store):
    other = rows(2, method="gradient_dot", component="all", reliable=None)
    old_store.write("influence", other, replace=KEY | {"method": ["gradient_dot"]})
    assert compact(old_store, "influence", "r") == 2
    assert query(old_store.root, "select method, count(*) from influence group by 1 order by 1").rows() == [
        ("adjoint", 3),
        ("gradient_dot", 2),
    ]
    assert not verify_store(old_store.files).damage


def test_a_row_without_its_method_is_refused(local_store):
    with pytest.raises(ValueError, match="column method has empty values; write 'adjoint'"):
        local_store.write("influence", rows(1, method=None, component="all", reliable=None), replace=KEY)


def test_a_column_that_came_later_has_a_part_in_versions_only_where_it_says_something():
    table = TABLES["influence"]
    before = rows(method="adjoint", component="all", reliable=True)
    assert content_version(table, before | {"weight": [1.0] * 3}) == content_version(table, before)
    assert content_version(table, before | {"weight": [1.0, 1.0, 0.5]}) != content_version(table, before)
    assert content_version(table, before | {"standard_error": [None] * 3}) == content_version(table, before)
    assert content_version(table, before | {"standard_error": [None, 0.1, 0.1]}) != content_version(table, before)
