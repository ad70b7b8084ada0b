"""Which tokens a movement of output weights promotes: known on paper for weights set by hand, and against the model itself."""

import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.readouts.vocabulary import head_readout, lens, neuron_readout
from mech_pipeline.pipeline.analysis.readouts import compute_readouts
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.model import Model
from mech_pipeline.store.reading.query import query
from mech_pipeline.training.model import build_model
from tests.support import tiny
from tests.support.once import trained

pytestmark = pytest.mark.usefixtures("folder")
MODELS = {
    "native": Model(layers=2, heads=2, d_model=16, d_mlp=32),
    "normed": Model(layers=1, heads=2, d_model=16, d_mlp=32, normalization="layer_norm"),
    "gpt2": Model(family="gpt2", layers=1, heads=2, d_model=16, d_mlp=32),
    "gpt_neox": Model(family="gpt_neox", layers=1, heads=2, d_model=16, d_mlp=32),
    "llama": Model(family="llama", layers=1, heads=2, d_model=16, d_mlp=32),
}
ASKED = {
    "model": {"layers": 2, "heads": 2, "d_model": 16, "d_mlp": 24},
    "readouts": {"windows": [[6, 24]], "tokens": 3, "neurons": 5},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_lens_is_what_the_last_norm_and_the_unembedding_do(name):
    """A stream of known length and mean: the logits' change along any direction, up to the norm's one positive number."""
    model = build_model(MODELS[name], 40, 12, 0).double()
    read = lens(model, 40)
    norm, head = (model.get_submodule(x) for x in {
        "native": ("ln_out", "head"), "normed": ("ln_out", "head"), "gpt2": ("transformer.ln_f", "lm_head"),
        "gpt_neox": ("gpt_neox.final_layer_norm", "lm_head"), "llama": ("model.norm", "lm_head"),
    }[name])  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    written = torch.randn(16, generator=generator, dtype=torch.float64)
    if getattr(norm, "weight", None) is not None:
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0, generator=generator)
        read = lens(model, 40)
    bias = getattr(head, "bias", None)
    logits = head(norm(1e6 * written)) - (0 if bias is None else bias)
    if isinstance(norm, torch.nn.LayerNorm):
        logits = logits - head.weight @ norm.bias
    along = read @ written
    assert torch.allclose(logits / logits.norm(), along / along.norm(), atol=1e-5)


def test_a_head_reads_the_direction_that_moved_furthest_whatever_its_sign():
    read = torch.eye(4)
    moved = torch.zeros(2, 4, 2)
    moved[0, 1] = torch.tensor([3.0, 0.0])
    moved[0, 2] = torch.tensor([0.0, 4.0])
    moved[1, 3] = -torch.tensor([1.0, 1.0])
    found = head_readout(read, moved, 1)
    assert found.promoted.tolist() == [[2], [3]]
    assert found.up.flatten().tolist() == pytest.approx([4.0, 2**0.5])
    assert found.moved.tolist() == pytest.approx([5.0, 2**0.5])
    assert found.share.tolist() == pytest.approx([16 / 25, 1.0])


def test_rows_are_the_lens_of_what_moved_between_two_checkpoints(local_store):
    run = trained(local_store, tiny.spec_of(**ASKED))
    assert compute_readouts(run, [24]) == 1
    assert compute_readouts(run, [24]) == 0, "nothing is computed again"
    rows = query(local_store.root, "select * from vocabulary_readouts order by layer, part, unit, direction, place")
    assert rows.height == 2 * (2 + 5) * 2 * 3
    assert rows["begin"].unique().to_list() == [6]
    flat = run.trainer.flat
    states = {}
    for step in (6, 24):
        flat.load(run.weights(step))
        states[step] = flat.model.get_submodule("layers.1.mlp.fc_out").weight.detach().clone()
    moved = states[24] - states[6]
    furthest = moved.norm(dim=0).argsort(descending=True)[:5]
    of_layer = rows.filter(layer=1, part="neuron")
    assert set(of_layer["unit"]) == set(furthest.tolist())
    unit = int(furthest[0])
    logits = lens(flat.model, run.tokens.vocabulary) @ moved[:, unit]
    best = of_layer.filter(unit=unit, direction="promoted", place=0)
    assert best["token"].item() == int(logits.argmax())
    assert best["logit"].item() == pytest.approx(float(logits.max()), rel=1e-6)
    assert best["moved"].item() == pytest.approx(float(moved[:, unit].norm()), rel=1e-6)
    assert neuron_readout(lens(flat.model, run.tokens.vocabulary), moved, 3).down.max() <= logits.max()
    found = run.tokens.probe.origin.tokenizer
    assert best["text"].item() == found.decode([best["token"].item()], skip_special_tokens=False)


def test_an_attention_only_model_has_rows_of_heads_alone(local_store):
    run = trained(local_store, tiny.spec_of(readouts=ASKED["readouts"]))
    compute_readouts(OpenRun(local_store, run.spec), [24])
    assert query(local_store.root, "select distinct part from vocabulary_readouts").rows() == [("head",)]


@pytest.mark.parametrize(
    ("windows", "problem"),
    [
        ([[0, 7]], "readouts.windows: run .* plans no checkpoint at step 7"),
        ([[6, 6]], "windows are"),
        ([[0, 6], [3, 6]], "windows are"),
    ],
)
def test_windows_that_cannot_be_are_refused(windows, problem):
    with pytest.raises(MechError, match=problem):
        tiny.spec_of(readouts={"windows": windows})
