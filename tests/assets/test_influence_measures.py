"""What the UI shows of an influence partition: counts of each estimator apart."""

from mech_pipeline.assets.attribution import _MEASURES
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import MECHANISM, RUN, write


def test_scores_of_several_estimators_are_counted_apart(local_store: Store) -> None:
    columns = ("step", "update_step", "example_id", "value", "reliable", "run", "mechanism", "method")
    for method, n in (("adjoint", 3), ("gradient_dot", 2)):
        rows = [(20, 0, f"x{i}", 1.0, i > 0, RUN, MECHANISM, method) for i in range(n)]
        write(local_store, "influence", columns, rows, run=[RUN], method=[method])
    with connect(local_store.root) as connection:
        found = dict(connection.execute(_MEASURES["influence"], {"run": RUN, "step": 20}).fetchall())
    assert found == {
        "examples": 3,
        "scores outside their reliable regime": 1,
        "gradient_dot examples": 2,
        "gradient_dot scores outside their reliable regime": 1,
    }
