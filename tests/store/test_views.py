"""The views over several tables, on rows written by hand."""

import pytest

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.store.reading import connect
from mech_pipeline.store.tables.views import VIEWS

ROWS = [
    # step, term, example, component, value, value_later
    (10, "example", "x", "L0H1.Q", 1.0, 0.5),
    (10, "example", "y", "L1H0.OV", 2.0, 0.0),
    (20, "example", "x", "L1.MLP.in", 3.0, 0.25),
    (20, "momentum", None, "L0H1.Q", 9.0, 0.0),
    (30, "example", "y", "L0H1.Q", 50.0, 0.0),
]


@pytest.fixture
def opened(local_store):
    """The same ledger of two runs: in one the mechanism formed at step 20, in the other never."""
    for run, formed in (("formed", 20), ("never", None)):
        for step in (10, 20, 30):
            _, terms, examples, components, values, later = zip(*(row for row in ROWS if row[0] == step), strict=True)
            columns = {
                **{"update_step": [step - 1] * len(terms), "term": terms, "example_id": examples},
                **{"component": components, "value": values, "value_later": later},
            }
            write(local_store, [Block(Cell("ledger", run, step, "m"), columns, "f")], "1")
        event = {"step": [formed], "lower": [10], "upper": [formed], "threshold": [1.0], "sustain": [1]}
        event["censored"] = [formed is None]
        write(local_store, [Block(Cell("formation", run, item="m"), event, "f")], "1")
    with connect(local_store.root) as connection:
        yield connection


def test_responsible_ranks_examples_by_what_they_did_before_it_formed(opened):
    """What happened after step 20, momentum, and the run in which nothing formed do not count."""
    rows = opened.execute("select run, example_id, nats, rank, formed_at from responsible order by rank").fetchall()
    assert rows == [("formed", "x", 1.0 + 0.5 + 3.0 + 0.25, 1, 20), ("formed", "y", 2.0, 2, 20)]


def test_before_formation_has_every_row_of_the_ledger_up_to_it(opened):
    assert opened.execute("select run, count(*), max(step) from before_formation group by run").fetchall() == [
        ("formed", 4, 20)
    ]


def test_a_component_has_the_layer_and_head_that_head_scores_have(opened):
    rows = opened.execute("select distinct component, layer, head from ledger order by component").fetchall()
    assert rows == [("L0H1.Q", 0, 1), ("L1.MLP.in", None, None), ("L1H0.OV", 1, 0)]


def test_views_have_the_columns_that_are_documented(opened):
    for view in VIEWS.values():
        columns = [name for name, *_ in opened.execute(f"describe {view.name}").fetchall()]
        documented = [column.name for column in view.columns if column.name != "…"]
        assert set(documented) <= set(columns), view.name
        assert "…" in {column.name for column in view.columns} or documented == columns, view.name


def test_a_cut_without_their_tables_has_no_views(opened, local_store):
    with connect(local_store.root, ["runs"]) as connection:
        names = connection.execute("select view_name from duckdb_views() where not internal").fetchall()
    assert {name for (name,) in names} == {"runs", "snapshot"}
