"""Readouts: truths known on paper, TransformerBridge, and derivatives against finite differences, on every family."""

import math

import pytest
import torch
from torch import nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import head_weights, input_of, neuron_projection, unembedding
from mech_pipeline.mechanisms.readouts import (
    Attended,
    Contrast,
    Marked,
    attended,
    attention_to,
    composition,
    fixed_direction,
    head_output_along,
    logit_difference,
    loss,
    neuron_activation,
    unembedding_difference,
)
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY

TOKENS = torch.randint(0, VOCABULARY, (3, CONTEXT), generator=torch.Generator().manual_seed(5))
MARKED = Marked(TOKENS, torch.arange(CONTEXT).expand(3, -1) % 3 == 2)
LINKS = attended(TOKENS, torch.tensor([4, 7, 11]), torch.tensor([1, 7, 3]))
CONTRAST = Contrast(TOKENS, torch.tensor([4, 7, 11]), torch.tensor([1, 2, 3]), torch.tensor([4, 5, 0]))
DIRECTION = torch.linspace(-1, 1, 8)


def cases(spec):
    """(name, readout, data) of everything that a model can be asked."""
    last = spec.layers - 1
    found = [
        ("loss", loss, MARKED),
        ("logit difference", logit_difference, CONTRAST),
        ("attention", attention_to(last, 1), LINKS),
        ("head output", head_output_along(last, 1, unembedding_difference), CONTRAST),
        ("head output along a fixed direction", head_output_along(0, 0, fixed_direction(DIRECTION)), CONTRAST),
    ]
    if spec.d_mlp is not None:
        found.append(("neuron", neuron_activation(last, 3), MARKED))
    if spec.layers > 1:
        found += [(f"composition {kind}", composition(kind, (0, 1), (1, 0)), None) for kind in "QKV"]
    return found


def double(spec, seed=0):
    return FlatModel(build_model(spec, VOCABULARY, CONTEXT, seed).double())


CASES = [
    pytest.param(spec, readout, data, id=f"{name}: {what}")
    for name, spec in ARCHITECTURES.items()
    for what, readout, data in cases(spec)
]


@pytest.mark.parametrize(("spec", "readout", "data"), CASES)
def test_first_and_second_derivatives_agree_with_finite_differences(spec, readout, data):
    flat = double(spec)
    theta = flat.vector.clone() + 0.1 * torch.randn(len(flat.vector), generator=torch.Generator().manual_seed(1))
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pieces = [direction[slot.begin : slot.end].view(slot.shape) for slot in flat.slots]

    def value(at):
        flat.load(at)
        return readout(flat.model, data)

    def along(at):
        """⟨∇M, direction⟩ at a state."""
        return float(flat.gradient(value(at)) @ direction)

    h = 3e-6  # truncation h² and rounding 1e-16 / h are both far below the tolerance
    moved = [float(value(theta + sign * h * direction).detach()) for sign in (1, -1)]
    assert along(theta) == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=1e-6, abs=1e-9)
    firsts = torch.autograd.grad(value(theta), flat.parameters, create_graph=True, allow_unused=True)
    inner = sum((g * p).sum() for g, p in zip(firsts, pieces, strict=True) if g is not None)
    curvature = float(flat.gradient(inner) @ direction)
    expected = (along(theta + h * direction) - along(theta - h * direction)) / (2 * h)
    assert curvature == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert curvature != 0, "no readout here is linear in the parameters"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformer_bridge_reads_the_same_off_the_same_weights(architecture):
    spec = ARCHITECTURES[architecture]
    trained = build_model(spec, VOCABULARY, CONTEXT, 3)
    stock = build_model(spec, VOCABULARY, CONTEXT, 3, for_bridge=True)
    wrapped, last = bridge(stock), spec.layers - 1
    logits, cache = wrapped.run_with_cache(TOKENS)
    rows, at = torch.arange(3), CONTRAST.position
    expected = (logits[rows, at, CONTRAST.correct] - logits[rows, at, CONTRAST.wrong]).mean()
    assert torch.allclose(logit_difference(trained, CONTRAST), expected, atol=1e-5)
    pattern = cache[f"blocks.{last}.attn.hook_pattern"]
    expected = pattern[rows, 1, at, torch.tensor([1, 7, 3])].mean()
    assert torch.allclose(attention_to(last, 1)(trained, LINKS), expected, atol=1e-6)
    mixed = cache[f"blocks.{last}.attn.hook_z"].view(3, CONTEXT, spec.heads, spec.head_width)
    along = wrapped.W_U.T[CONTRAST.correct] - wrapped.W_U.T[CONTRAST.wrong]
    expected = torch.einsum("ei,im,em->e", mixed[rows, at, 1], wrapped.W_O[last, 1], along).mean()
    readout = head_output_along(last, 1, unembedding_difference)
    assert torch.allclose(readout(trained, CONTRAST), expected, atol=1e-6)
    if spec.d_mlp is not None:
        expected = cache[f"blocks.{last}.mlp.hook_post"][..., 3][MARKED.chosen].mean()
        assert torch.allclose(neuron_activation(last, 3)(trained, MARKED), expected, atol=1e-6)


@pytest.mark.parametrize("architecture", [name for name, spec in ARCHITECTURES.items() if spec.layers > 1])
def test_composition_is_the_ratio_of_whole_circuits(architecture):
    """Elhage et al. 2021, with [d_model, d_model] matrices made from the bridge's weights."""
    spec = ARCHITECTURES[architecture]
    trained = build_model(spec, VOCABULARY, CONTEXT, 3)
    wrapped = bridge(build_model(spec, VOCABULARY, CONTEXT, 3, for_bridge=True))
    shared = spec.heads // spec.key_value_heads

    def circuits(layer, head):
        query, output = wrapped.W_Q[layer, head].T, wrapped.W_O[layer, head].T
        key, value = wrapped.W_K[layer, head // shared].T, wrapped.W_V[layer, head // shared].T
        return query.T @ key, output @ value

    _, written = circuits(0, 1)
    qk, ov = circuits(1, 0)
    for kind, read in {"Q": qk.T, "K": qk, "V": ov}.items():
        expected = (read @ written).norm() / (read.norm() * written.norm())
        assert torch.allclose(composition(kind, (0, 1), (1, 0))(trained, None), expected, rtol=1e-4)


def test_composition_is_one_for_heads_that_meet_and_zero_for_heads_that_do_not():
    model = build_model(ARCHITECTURES["attention-only"], VOCABULARY, CONTEXT, 0)
    model.requires_grad_(False)
    for layer, block in enumerate(model.layers):
        for part in (block.attn.q, block.attn.k, block.attn.v, block.attn.o):
            part.weight.zero_()
        if layer == 0:
            block.attn.v.weight[0, 0] = 2.0  # reads dimension 0
            block.attn.o.weight[5, 0] = 3.0  # writes dimension 5
        else:
            block.attn.k.weight[0, 5], block.attn.q.weight[0, 6] = 0.5, 7.0
            block.attn.v.weight[0, 7], block.attn.o.weight[1, 0] = 1.0, 1.0
    score = {kind: float(composition(kind, (0, 0), (1, 0))(model, None)) for kind in "QKV"}
    assert score == {"Q": 0.0, "K": 1.0, "V": 0.0}


def test_random_heads_compose_about_one_over_the_root_of_the_width():
    model = build_model(ARCHITECTURES["attention-only"].model_copy(update={"d_model": 256}), VOCABULARY, CONTEXT, 0)
    for kind in "QKV":
        assert float(composition(kind, (0, 0), (1, 1))(model, None).detach()) == pytest.approx(1 / 16, rel=0.1)


def test_heads_and_bias_together_are_what_attention_writes():
    for spec in ARCHITECTURES.values():
        model = double(spec).model
        heads = sum(
            head_output_along(0, head, fixed_direction(DIRECTION))(model, CONTRAST) for head in range(spec.heads)
        )
        wrapped = build_model(spec, VOCABULARY, CONTEXT, 0, for_bridge=True)
        _, cache = bridge(wrapped).run_with_cache(TOKENS)
        written = cache["blocks.0.hook_attn_out"][torch.arange(3), CONTRAST.position]
        bias = next((p for name, p in model.named_parameters() if name.endswith(_O_BIASES) and ".0." in name), None)
        expected = (written.double() - (0 if bias is None else bias)) @ DIRECTION.double()
        assert torch.allclose(heads, expected.mean(), atol=1e-6)


_O_BIASES = ("attn.o.bias", "attn.c_proj.bias", "attention.dense.bias")


def test_attention_of_a_hand_built_pattern_counts_queries_with_a_key_only():
    """A head with equal scores attends uniformly: 1 / (query + 1) to each key."""
    model = build_model(ARCHITECTURES["attention-only"], VOCABULARY, CONTEXT, 0)
    with torch.no_grad():
        model.layers[0].attn.q.weight[:4].zero_()
        model.layers[0].attn.q.bias[:4].zero_()
    targets = torch.zeros(3, CONTEXT, CONTEXT, dtype=torch.bool)
    targets[0, 3, [0, 1]], targets[1, 9, 9] = True, True
    found = attention_to(0, 0)(model, Attended(TOKENS, targets))
    assert float(found.detach()) == pytest.approx((2 / 4 + 1 / 10) / 2, abs=1e-6)


class Indifferent(nn.Module):
    """Gives every token the same logit but token 2, which has 1.5 more."""

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, VOCABULARY)
        logits[..., 2] = 1.5
        return logits


def test_loss_and_logit_difference_of_a_model_known_on_paper():
    total = math.log(VOCABULARY - 1 + math.exp(1.5))
    tokens = torch.tensor([[0, 2, 5, 2]])
    chosen = torch.tensor([[False, True, True, False]])
    assert float(loss(Indifferent(), Marked(tokens, chosen))) == pytest.approx(total - 1.5 / 2)
    contrast = Contrast(tokens, torch.tensor([2]), torch.tensor([2]), torch.tensor([7]))
    assert float(logit_difference(Indifferent(), contrast)) == pytest.approx(1.5)


def test_activations_of_all_neurons_make_the_output_of_the_mlp():
    for spec in ARCHITECTURES.values():
        if spec.d_mlp is None:
            continue
        model = double(spec).model
        means = [neuron_activation(0, neuron)(model, MARKED) for neuron in range(spec.mlp_width)]
        part = neuron_projection(model, 0)
        whole = part(input_of(model, part, TOKENS))[MARKED.chosen].mean(0)
        assert torch.allclose(part(torch.stack(means)[None])[0], whole)


def test_what_a_model_lacks_is_named():
    model = build_model(ARCHITECTURES["attention-only"], VOCABULARY, CONTEXT, 0)
    layers = "the model has layers 0 to 1 with heads 0 to 1"
    for readout, data, message in (
        (attention_to(2, 0), LINKS, f"needs head 0 of layer 2; {layers}"),
        (attention_to(0, -1), LINKS, f"needs head -1 of layer 0; {layers}"),
        (head_output_along(0, 2, unembedding_difference), CONTRAST, f"needs head 2 of layer 0; {layers}"),
        (composition("K", (0, 0), (5, 0)), None, f"needs head 0 of layer 5; {layers}"),
        (neuron_activation(0, 0), MARKED, r"needs mlp\.fc_out of layer 0; the model has none"),
        (head_output_along(0, 0, fixed_direction(torch.ones(3))), CONTRAST, "direction has 3 entries, .* stream 8"),
    ):
        with pytest.raises(MechError, match=message):
            readout(model, data)
    with pytest.raises(MechError, match="known family, got Indifferent"):
        unembedding(Indifferent())
    with pytest.raises(MechError, match="head 0 of layer 0 cannot read head 1 of layer 1"):
        composition("V", (1, 1), (0, 0))
    with pytest.raises(MechError, match="neurons 0 to 11"):
        neuron_activation(0, 12)(build_model(ARCHITECTURES["gpt2"], VOCABULARY, CONTEXT, 0), MARKED)
    with pytest.raises(MechError, match="no position of its probe data is marked"):
        Marked(TOKENS, torch.zeros(3, CONTEXT, dtype=torch.bool))
    with pytest.raises(MechError, match="the first token of a sequence is marked"):
        loss(model, Marked(TOKENS, torch.ones(3, CONTEXT, dtype=torch.bool)))


def test_heads_that_share_keys_have_the_same_keys_and_values():
    model = build_model(ARCHITECTURES["llama with shared keys"], VOCABULARY, CONTEXT, 0)
    one, two, three = (head_weights(model, 0, head) for head in (0, 1, 2))
    assert torch.equal(one.key, two.key)
    assert torch.equal(one.value, two.value)
    assert not torch.equal(one.query, two.query)
    assert not torch.equal(two.key, three.key)
