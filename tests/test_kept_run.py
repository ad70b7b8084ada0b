"""`mech_pipeline.open`: a run of a store, to look at."""

import pytest
import torch

import mech_pipeline
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.training.batches import write_batches
from tests.support.once import trained
from tests.support.tiny import spec_of


@pytest.fixture
def run(folder, local_store):
    """The tiny run, trained, in the store of the current folder's project."""
    (folder / "dagster.yaml").touch()
    trained(local_store, spec_of())
    write_batches(local_store, spec_of())
    return mech_pipeline.open("tiny.baseline.s0")


def test_a_checkpoint_opens_as_the_model_that_was_trained(run):
    opened = trained(run.store, run.spec)
    wrapped, flat = run.model(6), opened.trainer.flat
    flat.load(opened.weights(6))
    tokens = run.probe("induction_copy_advantage").tokens
    with torch.no_grad():
        logits, cache = wrapped.run_with_cache(tokens)
        torch.testing.assert_close(logits, flat.model(tokens), atol=1e-5, rtol=1e-4)  # other kernels, float32
    examples, length = tokens.shape
    assert cache["blocks.1.attn.hook_pattern"].shape == (examples, 2, length, length)


def test_two_models_of_a_run_do_not_share_weights(run):
    first, last = run.model(run.steps[0]), run.model(run.steps[-1])
    assert run.steps == [0, 3, 6, 12, 18, 24]
    assert not torch.equal(first.W_E, last.W_E)
    assert not torch.equal(first.W_E, run.model(3).W_E)


def test_an_example_has_its_text_its_tokens_and_the_updates_that_saw_it(run):
    row = run.frame("batches").row(0, named=True)
    example = run.example(row["example_id"][:12])
    assert example.example_id == row["example_id"]
    assert row["update_step"] in example.updates["tiny.baseline.s0"]
    assert run.tokenizer.decode(example.tokens.tolist(), skip_special_tokens=False) == example.text
    assert example.n_tokens == len(example.tokens)


def test_frames_are_of_the_run_alone(run):
    assert set(run.frame("checkpoints")["run"]) == {"tiny.baseline.s0"}
    assert run.frame("examples").height > 0, "a table without runs is given whole"
    assert "6 checkpoints, 0 to 24" in repr(run)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda run: run.model(7), r"step 7 of run tiny.baseline.s0 is not kept; nearest: 6 and 12 → `mech zoom"),
        (lambda run: run.model(99), r"nearest: 24 → see run.steps"),
        (lambda run: run.probe("induction_copy_advantag"), "did you mean 'induction_copy_advantage'"),
        (lambda run: run.frame("leger"), "did you mean 'ledger'"),
        (lambda run: run.example("zz"), "no example has an id that begins with 'zz'"),
        (lambda run: run.example(""), "several examples begin with ''"),
        (lambda run: mech_pipeline.open("baselin"), "did you mean 'tiny.baseline.s0'"),
        (lambda run: mech_pipeline.open("x", "nowhere"), "there is no store at"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(run, ask, said):
    with pytest.raises(MechError, match=said):
        ask(run)
