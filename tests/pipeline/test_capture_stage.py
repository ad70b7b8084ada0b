"""In-training scores through the pipeline: same bits of training, and the numbers that the formula says."""

import pytest
import torch

from mech_pipeline.attribution.ledger.ledger import batch_factors
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.pipeline.training import training
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.update.optimizer import coefficients, scaling
from tests.support import tiny
from tests.support.once import trained as trained_once

pytestmark = pytest.mark.usefixtures("folder")
COPY = "induction_copy_advantage"
ASKED = {"mechanisms": [COPY, "previous_token_attention"]}


def trained(store, **change):
    spec = tiny.spec_of(**change)
    return trained_once(store, spec)


@pytest.mark.parametrize("change", [{}, {"training": {"steps": 24, "batch": 8, "micro_batches": 4}}])
def test_scores_are_the_first_order_effect_and_training_keeps_its_bits(local_store, tmp_path, change):
    run = trained(local_store, in_training=ASKED, **change)
    plain = trained(Store(tmp_path / "plain"), **change)
    assert tiny.checkpoint_hashes(local_store, run.spec.run) == tiny.checkpoint_hashes(plain.store, run.spec.run)
    stored = query(
        local_store.root, f"select update_step, example_id, value from in_training where mechanism = '{COPY}'"
    )
    assert stored["update_step"].unique().sort().to_list() == list(range(3, 24)), (
        "from the first anchor after step 0 on"
    )
    made = run.trainer.step(run.state(12))
    c = coefficients(run.spec.optimizer, 12)
    run.trainer.flat.load(made.before.theta)
    gradient = mechanism_gradient(COPY, run.trainer.flat, run.tokens.probe)
    direction = -c.learning_rate * c.kappa / c.r1 * scaling(run.spec.optimizer, made.before.v, 11) * gradient
    contraction = Contraction(run.trainer.flat, run.components)
    expected = made.clip * contraction(batch_factors(run.trainer, made), direction[None])[0].sum(1)
    found = dict(stored.filter(update_step=12).select("example_id", "value").rows())
    ids = run.tokens.example_ids[made.examples.numpy()]
    assert [found[i] for i in ids] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-9)


def test_a_resumed_training_has_the_scores_of_an_uninterrupted_one(local_store, tmp_path):
    whole = trained(Store(tmp_path / "whole"), in_training=ASKED)
    trained(local_store, in_training=ASKED, training={"steps": 12, "batch": 8})
    trained(local_store, in_training=ASKED)
    everything = "select update_step, mechanism, example_id, value from in_training order by all"
    assert query(local_store.root, everything).rows() == query(whole.store.root, everything).rows()


def test_components_confine_the_scores(local_store):
    run = trained(local_store, in_training=ASKED | {"components": ["L1H*.K"]})
    assert query(local_store.root, "select count(*) > 0 from in_training").item()
    assert torch.isfinite(
        torch.tensor(query(local_store.root, "select value from in_training")["value"].to_list())
    ).all()
    wrong = tiny.spec_of(1, in_training=ASKED | {"components": ["L9*"], "seeds": "all"})
    tiny.prepare(local_store, wrong)
    with pytest.raises(MechError, match="no component fits 'L9\\*'"):
        training.train(local_store, wrong)
    assert run.spec.in_training.components == ("L1H*.K",)


def test_a_training_that_hooks_do_not_see_is_refused_in_the_file():
    with pytest.raises(MechError, match="in_training of run tiny.baseline.s0: not with stacked"):
        tiny.spec_of(
            in_training=ASKED,
            training={"steps": 24, "batch": 8, "stacked": True},
            model={"layers": 2, "heads": 2, "d_model": 32},
        )
