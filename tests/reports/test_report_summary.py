"""The end of `mech run` in words."""

from pathlib import Path

from mech_pipeline.reports.summary import summary
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.store import Store
from tests.support.report_store import MECHANISM, RUN, write_attribution, write_runs


def test_summary_tells_formation_balance_and_kinds(tmp_path: Path, experiment: Experiment) -> None:
    store = Store(tmp_path / "store")
    write_runs(store)
    write_attribution(store)
    text = " ".join(summary(str(store.root), experiment, tmp_path / "store").split())
    assert "Formation of induction_copy_advantage: at least 1, sustained 1 ×" in text
    assert f"Ledger of {MECHANISM}, {RUN}: explained +13.4375000 of a change of +12.9375000 nats" in text
    assert "Most responsible documents up to step 20" in text
    half = "50 % are plain, 50 % tiled"
    assert f"of the top 5 % of examples {half}, of the bottom 5 % {half} (of all: {half})." in text


def test_summary_of_one_kind_says_nothing_of_kinds(tmp_path: Path, experiment: Experiment) -> None:
    store = Store(tmp_path / "store")
    write_runs(store)
    write_attribution(store, ("names", "names"))
    text = " ".join(summary(str(store.root), experiment, tmp_path / "store").split())
    assert f"Influence on {MECHANISM} at step 20, {RUN}: A prediction for small changes." in text
