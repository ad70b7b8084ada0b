"""Heads and neurons that are held while a model computes: what is forbidden is not done, and nothing else changes."""

import pytest
import torch

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.held import held
from mech_pipeline.mechanisms.anatomy import attention, input_of, neuron_projection, output_of, output_projection
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
