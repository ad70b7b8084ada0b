"""May influence be trusted? What retraining measured outranks what the sweep knows of itself."""

from mech_pipeline.attribution.retraining.trust import Trust, Verdict, influence_verdicts, trust
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import MECHANISM, RUN, write


def test_what_retraining_measured_outranks_what_the_sweep_knows_of_itself(local_store: Store) -> None:
    names = ("step", "update_step", "example_id", "value", "run", "mechanism", "method", "reliable")
    keys = (RUN, MECHANISM, "adjoint")
    for step, reliable in ((10, True), (20, True), (30, False), (40, None)):
        replaced = {"run": [RUN], "step": [step], "mechanism": [MECHANISM], "method": ["adjoint"]}
        write(local_store, "influence", names, [(step, u, "a", 1.0, *keys, reliable) for u in (0, 1)], **replaced)
        if reliable is not None:
            of_sweep = [("reliable", -1, float(reliable), step, *keys)]
            columns = ("metric", "update_step", "value", "step", "run", "mechanism", "method")
            write(local_store, "reliability", columns, of_sweep, **replaced)
    measured = ((20, 0.05, 0.0), (20, 0.01, 1.0), (30, 0.05, 1.0))
    write(
        local_store,
        "lds",
        ("step", "fraction", "metric", "value", "n", "run", "mechanism", "method"),
        [(step, fraction, "reliable", value, 40, *keys) for step, fraction, value in measured],
        run=[RUN],
    )
    with connect(local_store.root) as opened:
        said = [trust(opened, RUN, step, MECHANISM) for step in (10, 20, 30, 40)]
        verdicts = {verdict.name: verdict for verdict in influence_verdicts(opened)}
    assert said == [Trust(True, False), Trust(False, True), Trust(True, True), Trust(None, False)]
    of_step = {step: verdicts[f"{RUN}|{step} {MECHANISM} adjoint"] for step in (10, 20, 30, 40)}
    assert [step for step, verdict in of_step.items() if verdict.flagged] == [20]
    assert [step for step, verdict in of_step.items() if verdict.unknown] == [40]
    assert of_step[20].words == "not confirmed by retraining"
    assert Verdict("name", 3, 0, 4, None).words == "3 of 4 scores"
