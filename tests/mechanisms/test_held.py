"""Heads and neurons that are held while a model computes: what is forbidden is not done, and nothing else changes."""

import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.held import held
from mech_pipeline.mechanisms.anatomy import (
    attention,
    final_norm,
    head_slice,
    input_of,
    neuron_projection,
    output_of,
    output_projection,
    unembedding_module,
)
from mech_pipeline.spec.intervention import Intervention
from mech_pipeline.spec.model import Model
from mech_pipeline.training.attention import fused_attention
from mech_pipeline.training.model import build_model, example_losses

FAMILIES = {
    "native": Model(layers=2, heads=2, d_model=16, d_mlp=32),
    "gpt2": Model(family="gpt2", layers=2, heads=2, d_model=16),
    "gpt_neox": Model(family="gpt_neox", layers=2, heads=2, d_model=32),
    "llama": Model(family="llama", layers=2, heads=4, kv_heads=2, d_model=32),
}
TOKENS = torch.arange(24).reshape(2, 12) % 11


def model_heads(model):
    return output_of(model, attention(model, 0), TOKENS)[1].shape[1]


@pytest.fixture(params=FAMILIES)
def model(request):
    return build_model(FAMILIES[request.param], 12, 12, seed=3).eval()


def test_a_head_that_must_not_look_back_attends_to_everything_else(model):
    forbid = Intervention(head=(1, 1), do="forbid_previous_token")
    plain = output_of(model, attention(model, 1), TOKENS)[1]
    with held(model, [forbid], 0):
        pattern = output_of(model, attention(model, 1), TOKENS)[1]
    previous = pattern.diagonal(-1, dim1=2, dim2=3)
    assert (previous[:, 1] == 0).all()
    assert torch.equal(pattern[:, 0], plain[:, 0]), "the other heads of its layer are as they were"
    assert torch.allclose(pattern.sum(-1), torch.ones(2, pattern.shape[1], 12))
    others = plain[:, 1].clone()
    others.diagonal(-1, dim1=1, dim2=2).zero_()
    assert torch.allclose(pattern[:, 1], others / others.sum(-1, keepdim=True), atol=1e-6)
    assert torch.equal(output_of(model, attention(model, 1), TOKENS)[1], plain), "and afterwards as before"


def test_fused_attention_forbids_the_same(model):
    with held(model, [Intervention(head=(0, 0), do="forbid_previous_token")], 0):
        expected = model(TOKENS)
        with fused_attention(True):
            assert torch.allclose(model(TOKENS), expected, atol=1e-5)
    assert not torch.allclose(model(TOKENS), expected, atol=1e-5)


def test_a_head_without_output_and_a_neuron_at_zero_give_nothing_and_get_no_gradient(model):
    silent = [Intervention(head=(0, 1), do="zero_output"), Intervention(neuron=(1, 5), do="zero")]
    width = input_of(model, output_projection(model, 0), TOKENS).shape[-1] // model_heads(model)
    with held(model, silent, 0):
        entering = input_of(model, output_projection(model, 0), TOKENS)
        assert (entering[..., width : 2 * width] == 0).all()
        assert (entering[..., :width] != 0).any()
        model.zero_grad()
        example_losses(model, TOKENS).sum().backward()
    for module, place in (
        (output_projection(model, 0), slice(width, 2 * width)),
        (neuron_projection(model, 1), slice(5, 6)),
    ):
        gradient = module.weight.grad.T if type(module).__name__ != "Conv1D" else module.weight.grad
        assert (gradient[place] == 0).all()
        assert (gradient != 0).any()


def columns_of(module):
    """What a linear layer writes for each entry of its input, [in, out]."""
    return module.weight if type(module).__name__ == "Conv1D" else module.weight.T


def logits_of_stream(model, stream):
    return unembedding_module(model)(final_norm(model)(stream))


@pytest.mark.parametrize("kind", ["clamp", "mean"])
def test_a_neuron_of_the_last_layer_moves_the_residual_stream_along_its_column_and_nothing_else(model, kind):
    hold = Intervention(neuron=(1, 5), do=kind, value=0.3 if kind == "clamp" else None)
    activation = input_of(model, neuron_projection(model, 1), TOKENS)[..., 5:6]
    stream = input_of(model, final_norm(model), TOKENS)
    wanted = 0.3 if kind == "clamp" else activation.sum() / 24
    by_hand = logits_of_stream(model, stream + (wanted - activation) * columns_of(neuron_projection(model, 1))[5])
    with held(model, [hold], 0):
        assert torch.allclose(model(TOKENS), by_hand, atol=1e-5)
    assert not torch.allclose(model(TOKENS), by_hand, atol=1e-5)


def test_a_head_of_the_last_layer_at_its_mean_writes_the_same_everywhere():
    model = build_model(Model(layers=2, heads=2, d_model=16), 12, 12, seed=3).eval()
    place, projection = head_slice(model, 1, 1), output_projection(model, 1)
    mixed = input_of(model, projection, TOKENS)[..., place]
    stream = input_of(model, final_norm(model), TOKENS)
    by_hand = logits_of_stream(model, stream + (mixed.sum((0, 1)) / 24 - mixed) @ columns_of(projection)[place])
    with held(model, [Intervention(head=(1, 1), do="mean_output")], 0):
        assert torch.allclose(model(TOKENS), by_hand, atol=1e-5)
    assert not torch.allclose(model(TOKENS), by_hand, atol=1e-5)


def test_what_is_held_at_a_number_enters_as_just_that(model):
    both = [Intervention(head=(0, 1), do="mean_output"), Intervention(neuron=(0, 5), do="clamp", value=-1.5)]
    place = head_slice(model, 0, 1)
    mixed = input_of(model, output_projection(model, 0), TOKENS)
    with held(model, both, 0):
        heads = input_of(model, output_projection(model, 0), TOKENS)
        neurons = input_of(model, neuron_projection(model, 0), TOKENS)
    assert (neurons[..., 5] == -1.5).all()
    assert torch.allclose(heads[..., place], mixed[..., place].mean((0, 1)), atol=1e-6)
    assert torch.equal(heads[..., : place.start], mixed[..., : place.start]), "the other heads are as they were"


@pytest.mark.parametrize(("do", "value"), [("clamp", 0.7), ("mean", None)])
def test_nothing_flows_into_a_held_neuron_and_its_column_learns_like_a_bias(do, value):
    model = build_model(FAMILIES["native"], 12, 12, seed=3)
    with held(model, [Intervention(neuron=(1, 5), do=do, value=value)], 0):
        at = input_of(model, neuron_projection(model, 1), TOKENS[:, :-1])[0, 0, 5]
        example_losses(model, TOKENS).sum().backward()
    mlp = model.layers[1].mlp
    assert (mlp.fc_in.weight.grad[5] == 0).all()
    assert mlp.fc_in.bias.grad[5] == 0
    assert (mlp.fc_in.weight.grad[4] != 0).any()
    assert at != 0
    assert torch.allclose(mlp.fc_out.weight.grad[:, 5], at.detach() * mlp.fc_out.bias.grad, atol=1e-5)


def test_only_its_window_is_held():
    model = build_model(FAMILIES["native"], 12, 12, seed=3)
    window = Intervention(head=(0, 0), do="zero_output", begin=3, to=5)
    plain = model(TOKENS)
    changed = []
    for update in range(8):
        with held(model, [window], update):
            changed.append(not torch.equal(model(TOKENS), plain))
    assert changed == [False] * 3 + [True] * 3 + [False] * 2


def test_a_part_that_is_not_there_is_named():
    model = build_model(FAMILIES["native"], 12, 12, seed=3)
    with pytest.raises(MechError, match="head"), held(model, [Intervention(head=(0, 7), do="zero_output")], 0):
        pass
