"""The loss of every example at every update: a data map is a query."""

import pytest
import torch

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline import alone
from mech_pipeline.pipeline.analysis.example_losses import compute_example_losses, losses_before
from mech_pipeline.pipeline.plan import ready_stages
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.reading.query import query
from tests.support import tiny
from tests.support.docs_commands import blocks
from tests.support.once import trained

pytestmark = pytest.mark.usefixtures("folder")
MEANS = """select max(abs(mean - value)), count(*) from training_metrics join (
    select run, update_step, avg(loss_nats::double) as mean from example_losses group by all
) losses on losses.run = training_metrics.run and losses.update_step = training_metrics.step where metric = 'loss_nats'"""


def losses_of(store, **change):
    run = trained(store, tiny.spec_of(example_losses=True, **change))
    write_batches(run.store, run.spec)
    compute_example_losses(run, run.planned)
    return run


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_the_mean_over_a_batch_is_the_loss_of_training(local_store, micro_batches):
    losses_of(local_store, training=tiny.TINY["training"] | {"micro_batches": micro_batches})
    ((largest, updates),) = query(local_store.root, MEANS).rows()
    assert updates == 24
    assert largest < 2e-6, "losses are stored as float32"


def test_places_are_those_of_the_batches(local_store):
    losses_of(local_store)
    same = "select count(*) from example_losses join batches using (run, update_step, position, example_id)"
    assert query(local_store.root, same).row(0) == (24 * 8,)


def test_weights_of_examples_are_no_part_of_a_loss(local_store):
    """A weight of 2 doubles an example's part in the batch's loss; what the model knows of the example stays."""
    run = trained(local_store, tiny.spec_of(example_losses=True))
    made = run.trainer.step(run.state(3))
    plain = losses_before(run.trainer, made)
    run.trainer.weights = torch.full((len(run.trainer.pool),), 2.0)
    assert torch.equal(losses_before(run.trainer, made), plain)


def test_the_stage_is_asked_for_by_the_experiment_and_is_current_afterwards(local_store):
    asked = {"ledger": {}, "influence": {}, "gradients": [], "detectors": [], "seeds": [0], "arms": {"baseline": {}}}
    asked |= {"formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2}]}
    spec, plain = tiny.spec_of(example_losses=True, **asked), tiny.spec_of(**asked)
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus))}
    assert plain.fingerprint("") != spec.fingerprint("")
    assert plain.training_slice() == spec.training_slice(), "asking for it trains nothing again"
    assert ("example_losses", spec.run) in alone.compute_all(local_store, [spec], corpora)
    assert ready_stages(local_store, spec, corpora[spec.run]) == {}
    assert "example_losses" not in ready_stages(local_store, plain, corpora[spec.run])
    (sql,) = [block.text for block in blocks("docs/sql.md", "sql") if "example_losses" in block.text]
    found = query(local_store.root, sql.replace("induction.baseline", "tiny.baseline"))
    assert found.height > 0
    assert {"example_id", "confidence", "variability", "seen"} <= set(found.columns)
