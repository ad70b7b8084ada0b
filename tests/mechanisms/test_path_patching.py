"""What induction loses without composition: models built by hand, attention recomputed by hand, TransformerLens, derivatives."""

import math

import pytest
import torch
from torch.nn.functional import layer_norm

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.path_patching import composition_effect
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.mechanisms.tasks.induction import copy_advantage
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model, next_token_losses
from tests.support.induction import LENGTH, SIZE, induction_by_k, induction_by_q, repeated
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY

KINDS = "QKV"
DEEP = {
    "no norm": Model(layers=3, heads=2, d_model=8),
    "layer norm, mlp": Model(layers=3, heads=2, d_model=8, d_mlp=12, normalization="layer_norm"),
    "rms norm, rotary": Model(layers=3, heads=2, d_model=8, normalization="rms_norm", positions="rotary"),
    "rotary, no norm, mlp": Model(layers=3, heads=2, d_model=8, d_mlp=8, positions="rotary"),
    "gpt2": ARCHITECTURES["gpt2"].model_copy(update={"layers": 3}),
    "gpt_neox": ARCHITECTURES["gpt_neox"].model_copy(update={"layers": 3}),
    "llama with shared keys": ARCHITECTURES["llama with shared keys"].model_copy(update={"layers": 3}),
}
NATIVE = [name for name, spec in DEEP.items() if spec.family == "native"]


def built(name, *, for_bridge=False):
    """A model in float64 whose biases and norms do something, and whose heads attend to something."""
    model = build_model(DEEP[name], VOCABULARY, CONTEXT, 0, for_bridge=for_bridge).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def sequences():
    return repeated(context=CONTEXT, vocabulary=VOCABULARY)


def effects(model, data):
    return {kind: float(composition_effect(kind, copy_advantage)(model, data).detach()) for kind in KINDS}


@pytest.mark.parametrize(("kind", "make"), [("K", induction_by_k), ("Q", induction_by_q)])
def test_an_induction_head_loses_all_without_the_composition_that_it_is_built_of_and_nothing_without_others(kind, make):
    data, model = repeated(count=8, context=LENGTH, vocabulary=SIZE), make()

    def on_repetition(model, data):
        """Minus the mean loss where an induction head can know the next token."""
        after = torch.arange(1, LENGTH) > data.period[:, None]
        return -next_token_losses(model, data.tokens)[after].mean()

    assert float(on_repetition(model, data).detach()) > -0.2, "it works"
    for measure, least in ((on_repetition, 2), (copy_advantage, 1)):  # the loss on the first copy changes as well
        found = {each: float(composition_effect(each, measure)(model, data).detach()) for each in KINDS}
        assert found.pop(kind) > least
        assert list(found.values()) == pytest.approx([0, 0], abs=1e-9)


def test_without_its_composition_the_induction_head_by_k_looks_everywhere_alike():
    data, model, blind = repeated(count=8, context=LENGTH, vocabulary=SIZE), induction_by_k(), induction_by_k()
    with torch.no_grad():
        blind.layers[1].attn.q.weight.zero_()
        left = float(copy_advantage(model, data)) - effects(model, data)["K"]
        assert left == pytest.approx(float(copy_advantage(blind, data)), abs=1e-9)


def normed(block, x):
    kind = type(block.ln1).__name__
    if kind == "Identity":
        return x
    if kind == "LayerNorm":
        return layer_norm(x, x.shape[-1:], block.ln1.weight, block.ln1.bias, block.ln1.eps)
    return block.ln1.weight * x / (x.square().mean(-1, keepdim=True) + block.ln1.eps).sqrt()


def head_by_head(model, tokens, patched=None, streams=None):
    """(losses, residual streams, attention outputs), one head and one sequence at a time, from weights."""
    tokens, targets = tokens[:, :-1], tokens[:, 1:]
    length, before, wrote = tokens.shape[1], [], []
    stream = model.tok_embed.weight[tokens]
    if model.pos is not None:
        stream = stream + model.pos.weight[:length]
    for layer, block in enumerate(model.layers):
        before.append(stream)
        attention = block.attn
        made = {
            kind: getattr(attention, kind.lower())(
                normed(block, streams[layer] if kind == patched and layer > 0 else stream)
            )
            for kind in KINDS
        }
        output = attention.o.bias.expand_as(stream).clone()
        for head in range(attention.n_heads):
            place = slice(head * attention.d_head, (head + 1) * attention.d_head)
            for row in range(len(tokens)):
                query, key, value = (made[kind][row, :, place] for kind in KINDS)
                if model.rotary is not None:
                    turned = model.rotary.apply_rope(query[None, None], key[None, None])
                    query, key = (x[0, 0] for x in turned)
                for t in range(length):
                    weights = torch.softmax(key[: t + 1] @ query[t] / math.sqrt(attention.d_head), 0)
                    output[row, t] += attention.o.weight[:, place] @ (weights @ value[: t + 1])
        wrote.append(output)
        stream = stream + output
        if not block.cfg.attn_only:
            stream = stream + block.mlp(block.ln2(stream))
    chances = torch.log_softmax(model.head(model.ln_out(stream)), -1)
    return -chances.gather(-1, targets[..., None])[..., 0], before, wrote


@torch.no_grad()
@pytest.mark.parametrize("name", NATIVE)
def test_effects_are_those_of_attention_recomputed_by_hand(name):
    model, data = built(name), sequences()

    def mean_loss(model, data):
        return -next_token_losses(model, data.tokens).mean()

    losses, before, wrote = head_by_head(model, data.tokens)
    assert torch.allclose(losses, next_token_losses(model, data.tokens), atol=1e-9)
    streams = []
    for layer, stream in enumerate(before):
        for earlier in wrote[:layer]:
            mean = torch.stack([earlier[row, t] for row in range(len(earlier)) for t in range(CONTEXT - 1)]).mean(0)
            stream = stream - earlier + mean
        streams.append(stream)
    found = {}
    for kind in KINDS:
        broken, _, _ = head_by_head(model, data.tokens, kind, streams)
        found[kind] = float(broken.mean() - losses.mean())
        assert float(composition_effect(kind, mean_loss)(model, data)) == pytest.approx(found[kind], abs=1e-9)
    assert min(abs(value) for value in found.values()) > 1e-4, "the three kinds are at work"
    assert len({round(value, 5) for value in found.values()}) == 3


@torch.no_grad()
@pytest.mark.parametrize("name", DEEP)
def test_transformer_lens_patches_the_same_paths(name):
    """Its hooks of split inputs stand before the norm, a copy of the residual stream for each head."""
    data = sequences()
    trained, stock = FlatModel(built(name)), FlatModel(built(name, for_bridge=True))
    stock.load(trained.vector)
    wrapped = bridge(stock.model)
    tokens = data.tokens[:, :-1]

    def losses(logits):
        return -torch.log_softmax(logits, -1).gather(-1, data.tokens[:, 1:, None])[..., 0].mean(1)

    def shortfall(model, data):
        return -next_token_losses(model, data.tokens).mean()

    names = [f"blocks.{layer}.{hook}" for layer in range(3) for hook in ("hook_resid_pre", "hook_attn_out")]
    logits, cache = wrapped.run_with_cache(tokens, names_filter=lambda name: name in names)
    split = DEEP[name].family != "native"  # native models have no hooks before the projections
    if split:
        wrapped.set_use_split_qkv_input(True)
    for kind in KINDS:
        hooks = []
        for layer in (1, 2):
            patched = cache[f"blocks.{layer}.hook_resid_pre"]
            for earlier in range(layer):
                output = cache[f"blocks.{earlier}.hook_attn_out"]
                patched = patched - output + output.mean(dim=(0, 1))
            place = f"blocks.{layer}.hook_{kind.lower()}_input"
            if not split:
                block, place = wrapped.blocks[layer], f"blocks.{layer}.attn.hook_{kind.lower()}"
                patched = getattr(block.attn, kind.lower())(block.ln1(patched)).unflatten(-1, (2, -1))
            else:
                patched = patched[:, :, None]
            hooks.append((place, lambda each, hook, patched=patched: patched.expand_as(each)))
        broken = losses(wrapped.run_with_hooks(tokens, fwd_hooks=hooks))
        ours = float(composition_effect(kind, shortfall)(trained.model, data))
        assert ours == pytest.approx(float((broken - losses(logits)).mean()), abs=1e-6)
        assert abs(ours) > 1e-5


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_agree_with_finite_differences(name, kind):
    flat = FlatModel(built(name))
    data, effect = sequences(), composition_effect(kind, copy_advantage)
    start, generator = flat.vector.clone(), torch.Generator().manual_seed(3)
    along, other = (torch.randn(len(start), generator=generator, dtype=torch.float64) for _ in range(2))

    def value(shift):
        flat.load(start + shift)
        return effect(flat.model, data)

    def slope(shift):
        parts = torch.autograd.grad(value(shift), flat.parameters, create_graph=True)
        return torch.cat([part.reshape(-1) for part in parts]) @ along

    step = 1e-5
    expected = float((value(step * along) - value(-step * along)).detach()) / (2 * step)
    assert float(slope(0 * along).detach()) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    second = flat.gradient(slope(0 * along)) @ other
    expected = float((slope(step * other) - slope(-step * other)).detach()) / (2 * step)
    assert float(second) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", DEEP)
def test_the_model_is_as_before_afterwards(name):
    model, data = built(name), sequences()
    before = model(data.tokens)
    effects(model, data)
    assert torch.equal(model(data.tokens), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_are_gone_when_the_measure_fails_and_models_of_one_layer_are_refused():
    model, data = built("no norm"), sequences()

    def twice(model, data):
        return copy_advantage(model, data) + copy_advantage(model, data)

    with pytest.raises(MechError, match="exactly once"):
        composition_effect("K", twice)(model, data)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for letter in "kqv":
        missing = MECHANISMS[f"induction_{letter}_composition"].missing
        assert missing(Model(layers=1)) == "needs 2 layers; the model has 1"
        assert missing(Model(layers=2)) is None


def test_the_mechanisms_measure_copy_advantage_on_tiled_sequences():
    model, data = induction_by_k(), repeated(count=8, context=LENGTH, vocabulary=SIZE)
    other = Sequences(data.tokens.roll(1, 0)[:2], data.period.roll(1, 0)[:2])
    probe = Probe(tiled=data, random=other)
    for kind, expected in effects(model, data).items():
        value = float(MECHANISMS[f"induction_{kind.lower()}_composition"].value(model, probe).detach())
        assert value == pytest.approx(expected, abs=1e-12)
