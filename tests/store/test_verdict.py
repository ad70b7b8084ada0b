"""One verdict on influence, wherever it is read: retraining, then metasmoothness, then what was known at first."""

import duckdb
import pytest

from mech_pipeline.attribution.retraining.trust import influence_verdicts, trust
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.warehouse import write_warehouse

MADE = {"run": ["r"], "input_fingerprint": ["made"], "data_version": ["held"]}
SCORES = "select update_step, reliable from influence where step = $step and method = $method order by 1"


def write(store, table, key, rows):
    """Rows of one target of run r."""
    count = len(next(iter(rows.values())))
    repeated = {name: value * count for name, value in MADE.items()} | {name: [v] * count for name, v in key.items()}
    store.write(table, repeated | rows, replace={"run": ["r"]} | {name: [value] for name, value in key.items()})


def write_target(store, step, smooth, *, said, horizon=0, method="adjoint"):
    """A target as a sweep stores it: updates 0 to 3, flagged before the horizon or as `said`."""
    key = {"step": step, "mechanism": "m", "method": method}
    flags = [said is not False and update >= horizon for update in range(4)]
    scores = {"update_step": list(range(4)), "example_id": ["e"] * 4, "value": [1.0] * 4, "reliable": flags}
    write(store, "influence", key, scores | {"component": ["all"] * 4})
    measures = {"metasmoothness": smooth, "metasmoothness_since": 0.0, "horizon_step": horizon, "reliable": min(flags)}
    values = {"metric": list(measures), "value": [float(value) for value in measures.values()]}
    write(store, "reliability", key, values | {"update_step": [-1] * 4})


def write_lds(store, step, *reliable, method="adjoint"):
    """Whether retraining confirmed it, for removals of several sizes."""
    count = len(reliable)
    rows = {"fraction": [0.1 / (1 + i) for i in range(count)], "metric": ["reliable"] * count, "n": [40] * count}
    rows |= {"value": [float(value) for value in reliable], "lower": [None] * count, "upper": [None] * count}
    write(store, "lds", {"step": step, "mechanism": "m", "method": method}, rows)


def flags(connection, step, method="adjoint"):
    rows = connection.execute(SCORES, {"step": step, "method": method}).fetchall()
    measured = connection.execute(
        "select value from reliability where metric = 'reliable' and step = ? and method = ?", [step, method]
    ).fetchall()
    return [flag for _, flag in rows], measured[0][0], trust(connection, "r", step, "m", method).reliable


@pytest.fixture
def store(local_store):
    """Targets at steps 10 to 60, each of another kind."""
    write_target(local_store, 10, 0.95, said=True)
    write_target(local_store, 20, 0.85, said=True)  # as it was said when the limit was lower
    write_target(local_store, 30, 0.95, said=True)
    write_lds(local_store, 30, True, False)
    write_target(local_store, 40, 0.5, said=False)
    write_lds(local_store, 40, True)
    write_target(local_store, 50, 0.95, said=True, horizon=2)
    write_target(local_store, 60, 0.85, said=True, horizon=2)
    return local_store


EXPECTED = {
    10: ([True] * 4, 1, True),
    20: ([False] * 4, 0, False),
    30: ([False] * 4, 0, False),
    40: ([True] * 4, 1, True),
    50: ([False, False, True, True], 0, False),
    60: ([False] * 4, 0, False),
}


def test_scores_measures_and_words_say_the_same_and_nothing_contradicts_retraining(store):
    with connect(store.root) as connection:
        assert {step: flags(connection, step) for step in EXPECTED} == EXPECTED
        said = {verdict.name: verdict.flagged for verdict in influence_verdicts(connection)}
        assert said == {f"r|{step} m adjoint": not expected[2] for step, expected in EXPECTED.items()}
    with store.reading("influence", "reliability", "lds") as connection:
        assert {step: flags(connection, step) for step in EXPECTED} == EXPECTED


def test_whoever_opens_the_scores_alone_sees_the_same_verdict(store):
    with connect(store.root, ["influence"]) as connection:
        assert {step: flags(connection, step) for step in EXPECTED} == EXPECTED


def test_a_warehouse_shows_the_verdict(store, tmp_path):
    with duckdb.connect(write_warehouse(store.root, tmp_path), read_only=True) as connection:
        assert {step: flags(connection, step) for step in EXPECTED} == EXPECTED
        comments = connection.execute("select comment from duckdb_views() where view_name = 'influence'").fetchall()
        assert "what would happen" in comments[0][0]


def test_a_cheap_estimator_is_no_more_reliable_than_training_is_smooth(store):
    write_target(store, 20, 0.85, said=True, method="gradient_dot")
    write_target(store, 30, 0.95, said=True, method="gradient_dot")
    with connect(store.root) as connection:
        assert flags(connection, 20, "gradient_dot") == ([False] * 4, 0, False)
        assert flags(connection, 30, "gradient_dot") == ([True] * 4, 1, True), (
            "another method's retraining is not its own"
        )
