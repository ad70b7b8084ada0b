"""An imported run whose replay is exact is a run like one that was trained here, at its place and out of a bundle without it."""

import shutil

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.bundle.bring_back import bring_back
from mech_pipeline.exchange.bundle.export import Wish, export
from mech_pipeline.exchange.bundle.manifest import read_manifest
from mech_pipeline.exchange.state import state_at
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from tests.exchange.test_imported_ledger import (
    OWN,
    asked_of,
    each_content_is_unpickled_once,
    published,
)
from tests.exchange.test_suites import computed
from tests.support import tiny

__all__ = ["each_content_is_unpickled_once"]

REPLAYED = {
    "influence": {"mechanisms": ["induction_copy_advantage"], "at": [12], "metasmoothness_steps": 0},
    "neurons": {"windows": [[0, 12]], "tokens": 3, "contexts": 2, "ablated": 4},
    "example_losses": True,
}
TABLES_OF_REPLAY = (
    *("ledger", "ledger_balance", "influence"),
    *("neurons", "neuron_tokens", "neuron_contexts", "example_losses"),
)


def rows(store, name):
    """What a table says, whenever and of whatever it was made."""
    columns = ", ".join(f'"{column.name}"' for column in TABLES[name].columns)
    return query(store.root, f"select {columns} from {name} order by all")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small Pythia, trained here with everything that replays it, and what others would publish of it."""
    home = tmp_path_factory.mktemp("original")
    tiny.write_text(home)
    store = Store(home / "store")
    experiment = resolve(parse_experiment(tiny.TINY | OWN | REPLAYED), home)
    computed(store, experiment)
    run = OpenRun(store, experiment.runs()[0])
    write_batches(store, run.spec)
    return store, run, published(run, home / "neox")


@pytest.fixture(scope="module")
def imported(made, tmp_path_factory):
    """The same run with its states from outside, in a store of its own; the place is a copy that can be taken away."""
    folder = tmp_path_factory.mktemp("imported")
    place = shutil.copytree(made[2], folder / "neox")
    store = Store(folder / "store")
    asked = asked_of(place, **REPLAYED)
    experiment = resolve(asked, made[1].spec.home)
    computed(store, experiment)
    return store, place, asked


@pytest.mark.parametrize("name", TABLES_OF_REPLAY)
def test_what_replays_an_imported_run_gives_the_rows_of_home(made, imported, name):
    ours = rows(made[0], name)
    assert ours.height > 0
    assert ours.equals(rows(imported[0], name)), "to the last bit"


@pytest.fixture(scope="module")
def whole(made, imported, tmp_path_factory):
    """A bundle of the imported run with its states and without what replays gave; then its place is taken away."""
    store, place, asked = imported
    folder = tmp_path_factory.mktemp("exported")
    wish = Wish("tiny", left_out=TABLES_OF_REPLAY, whole=True, home=made[1].spec.home)
    export(store, wish, folder / "bundle")
    place.rename(folder / "away")
    yield folder / "bundle", asked
    (folder / "away").rename(place)


def test_an_imported_bundle_is_replayed_without_the_place_its_states_came_from(made, whole, tmp_path):
    """Moments and batches are the bundle's: ledger, influence and the states in between have the bits of home."""
    bundle, asked = whole
    store, home = Store(tmp_path / "store"), made[1].spec.home
    bring_back(store, bundle)
    assert (verify_store(store.files).damage, verify_store(store.files).orphans) == ([], [])
    with pytest.raises(MechError, match="there is no folder"):
        resolve(asked, home)
    experiment = resolve(asked, home, store=store.root)
    done, _ = computed(store, experiment)
    assert "training" not in {stage for stage, _ in done}, "nothing is imported again"
    for name in TABLES_OF_REPLAY:
        assert rows(store, name).equals(rows(made[0], name)), name
    state, described = state_at(OpenRun(store, experiment.runs()[0]), 9, check=True)
    at_home, _ = state_at(made[1], 9)
    assert (described.replayed_from, described.checked_at) == (6, 12)
    assert all(getattr(state, part).equal(getattr(at_home, part)) for part in ("theta", "m", "v"))


def test_a_bundle_with_states_is_the_same_when_it_is_exported_again(whole, tmp_path):
    bundle, _ = whole
    store = Store(tmp_path / "store")
    bring_back(store, bundle)
    again = export(store, Wish("tiny"), tmp_path / "again")
    assert again.runs == read_manifest(bundle).runs, "the same states, the same chain"
    assert again.elsewhere == 0
    assert "They are here as well" in (tmp_path / "again" / "README.md").read_text()


def weights_alone(run, place, steps=(0, 6, 12), dtype=torch.float32):
    """What most suites publish of the same run: weights, and no moments."""
    flat = run.trainer.flat
    for step in steps:
        named = {name: tensor.to(dtype).contiguous().clone() for name, tensor in flat.named(run.weights(step)).items()}
        (place / f"step{step}").mkdir(parents=True)
        save_file(named, place / f"step{step}" / "model.safetensors", metadata={"format": "pt"})
    return place


def of_weights(made, place, **imported):
    """The run imported from weights and batches."""
    shutil.copy(made[2] / "config.json", place)
    named = {"layout": "folder", "batches": str(made[2] / "batches.parquet"), "moments": "reconstruct"}
    return resolve(asked_of(place, imported=named | imported), made[1].spec.home)


def test_moments_are_reconstructed_from_batches_and_are_those_of_training(made, tmp_path):
    experiment, store = of_weights(made, weights_alone(made[1], tmp_path / "suite")), Store(tmp_path / "store")
    computed(store, experiment)
    found = query(store.root, "select step, moments, moments_residual from checkpoints order by step").rows()
    assert found == [(step, "reconstructed", 0.0) for step in (0, 6, 12)]
    other = OpenRun(store, experiment.runs()[0])
    for step in (6, 12):
        assert all(getattr(other.state(step), part).equal(getattr(made[1].state(step), part)) for part in "mv")
    assert rows(store, "ledger").equals(rows(made[0], "ledger"))
    assert computed(store, experiment)[0] == [], "and they are kept"


def test_the_residual_says_what_reconstructed_moments_are_worth(made, tmp_path):
    """Weights in half precision leave its rounding; batches in another order leave about the whole movement."""
    place = weights_alone(made[1], tmp_path / "half", dtype=torch.float16)
    order = pl.read_parquet(made[2] / "batches.parquet")
    wrong = order.with_columns((11 - pl.col("update_step")).alias("update_step"))
    wrong.write_parquet(tmp_path / "wrong.parquet")
    residuals = {}
    for name, batches in (("right", made[2] / "batches.parquet"), ("wrong", tmp_path / "wrong.parquet")):
        experiment, store = of_weights(made, place, batches=str(batches)), Store(tmp_path / name)
        computed(store, experiment)
        residuals[name] = query(store.root, "select max(moments_residual) from checkpoints").item()
        balance = query(store.root, "select change, explained from ledger_balance").rows()
        assert all(explained == pytest.approx(change, abs=2e-6) for change, explained in balance)
    assert 0 < residuals["right"] < 0.05
    assert residuals["wrong"] > 0.2 > 4 * residuals["right"]


def test_a_revision_that_comes_later_gets_its_moments_from_the_one_before(made, tmp_path):
    place, store = weights_alone(made[1], tmp_path / "suite", (0, 6)), Store(tmp_path / "store")
    computed(store, of_weights(made, place))
    weights_alone(made[1], place, (12,))
    experiment = of_weights(made, place)
    computed(store, experiment)
    assert OpenRun(store, experiment.runs()[0]).state(12).v.equal(made[1].state(12).v)


def test_moments_that_cannot_be_reconstructed_are_refused_in_words(made, tmp_path):
    place = weights_alone(made[1], tmp_path / "suite", (6, 12))
    with pytest.raises(MechError, match="needs revision 0 and the batches of every update up to 12; .* begins at 6"):
        of_weights(made, place)
    with pytest.raises(MechError, match="tells updates 0 to 0"):
        of_weights(made, weights_alone(made[1], place, (0,)), batches=None)
