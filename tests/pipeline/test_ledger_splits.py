"""The ledger by token, by neuron, and of the weights themselves: every split sums back."""

import pytest
import torch

from mech_pipeline.attribution.ledger.token_grid import on_grid
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.ledger import wanted as ledger_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.reports.wording import signal_unit
from mech_pipeline.spec.analysis import WEIGHTS
from mech_pipeline.store.reading.query import query
from tests.support import tiny
from tests.support.once import trained as trained_once

pytestmark = pytest.mark.usefixtures("folder")
COPY = "induction_copy_advantage"


def account(store, model=None, **asked):
    """A tiny run with its whole ledger."""
    changed = {"model": tiny.TINY["model"] | (model or {})}
    spec = tiny.spec_of(ledger={"mechanisms": [COPY]} | asked, **changed)
    run = trained_once(store, spec)
    ledger.compute_ledger(run, run.planned)
    assert ledger_cells.pending(run, run.planned) == []
    return run


def test_tokens_in_both_meanings_sum_to_the_whole_effect_of_the_example(local_store):
    account(local_store, tokens=["position", "target"])
    found = query(
        local_store.root,
        """with whole as (select step, update_step, example_id, sum(value::double + value_later::double) as w from ledger
            where term = 'example' group by all),
        tokens as (select step, meaning, update_step, example_id, sum(value::double) as t, count(*) as n,
            sqrt(avg(value::double ** 2)) as rms, min(token_position) as first, max(token_position) as last
            from ledger_tokens group by all)
        select meaning, max(abs(w - t) / (rms / 64 + 1e-12)), min(first), max(last), min(n), count(*)
        from whole join tokens using (step, update_step, example_id) group by 1 order by 1""",
    ).rows()
    assert [(row[0], *row[2:5]) for row in found] == [("position", 0, 14, 15), ("target", 1, 15, 15)]
    assert all(row[1] <= 1 for row in found), "off by half a grid step at most"
    pairs = query(
        local_store.root, "select count(distinct (update_step, example_id)) from ledger where term = 'example'"
    )
    assert {row[5] for row in found} == {pairs.item()}


@pytest.mark.parametrize("model", [{"d_mlp": 6}, {"family": "llama", "d_mlp": 6}, {"family": "gpt2", "d_mlp": 6}])
def test_neurons_split_the_mlps_and_sum_back(local_store, model):
    run = account(local_store, model, neurons=True)
    names = {row[0] for row in query(local_store.root, "select distinct component from ledger").rows()}
    assert {f"L{layer}N{neuron}.{side}" for layer in (0, 1) for neuron in range(6) for side in ("in", "out")} <= names
    balance = query(local_store.root, "select max(abs(explained - change) / gross) from ledger_balance").item()
    assert balance < 1e-4
    assert len(run.ledger_components.names) > len(run.components.names)


def test_the_account_of_the_weights_says_how_far_each_part_moved_and_sums_to_it(local_store):
    run = account(local_store, mechanisms=[], weights=True)
    end, begin = run.state(12).theta.double(), run.state(6).theta.double()
    moved = dict(zip(run.components.names, run.components.norms(end - begin).tolist(), strict=True))
    found = dict(
        query(
            local_store.root,
            f"select component, sum(value::double) from ledger where mechanism = '{WEIGHTS}' and step = 12 group by 1",
        ).rows()
    )
    assert found.keys() == moved.keys()
    for name, distance in moved.items():
        assert found[name] == pytest.approx(distance, rel=1e-4, abs=1e-7)
    twice = query(
        local_store.root,
        "select sum(value_later::double), sum(value::double) filter (term = 'momentum') from ledger where mechanism = 'weights'",
    ).rows()[0]
    assert twice[0] == pytest.approx(twice[1], rel=1e-3), (
        "double entry: later effects are the momentum of later windows"
    )


def test_asking_for_a_finer_split_recomputes_the_ledger_and_nothing_else_of_the_spec_changes(local_store):
    run = account(local_store)
    finer = tiny.spec_of(ledger={"mechanisms": [COPY], "tokens": ["position"]})
    assert finer.training_slice() == run.spec.training_slice()
    assert len(ledger_cells.pending(OpenRun(local_store, finer), run.planned)) == len(run.planned) - 1


def test_a_mechanism_may_not_take_the_name_of_the_weights_account():
    with pytest.raises(MechError, match="unknown name 'weights'|the name of the ledger's account"):
        tiny.spec_of(mechanisms=[COPY, WEIGHTS])


def test_token_scores_on_the_grid_keep_their_sum():
    scores = torch.randn(50, 63, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()
    scores[7] = 0
    kept = on_grid(scores * 1e-9)
    step = 1e-9 * (scores**2).mean(1) ** 0.5 / 64
    assert (abs(kept.astype("float64").sum(1) - 1e-9 * scores.sum(1)) <= step / 2 + 1e-18).all()
    assert (abs(kept - 1e-9 * scores).max(1) <= step + 1e-18).all()
    assert not kept[7].any()


def test_units_of_what_a_store_holds_are_in_words():
    assert signal_unit(WEIGHTS) == "L2 distance of weights"
    assert signal_unit("a mechanism whose file is gone") == "unit not known any more"
