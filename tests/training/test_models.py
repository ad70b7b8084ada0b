"""Families, presets and checkpoints to start from: what is built, what it is called, and what is refused."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mech_pipeline.attribution.per_example.components import components_of
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.model import PRESETS, Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model, parameter_count
from tests.support.induction import repeated
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY
from tests.support.tiny import TINY

# Published: EleutherAI's table for Pythia; GPT-2 small has 124.4 million with its 1,024 positions.
PUBLISHED = {
    "pythia-14m": (50_304, 2048, 14_067_712),
    "pythia-70m": (50_304, 2048, 70_426_624),
    "gpt2-small": (50_257, 1024, 124_439_808),
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(preset):
    vocabulary, context, parameters = PUBLISHED[preset]
    assert parameter_count(Model(preset=preset), vocabulary, context) == parameters


def test_attention_only_presets_have_the_size_that_paper_gives():
    width, vocabulary, context = 512, 1000, 128
    per_layer = 4 * width * width + 4 * width + 2 * width  # Q, K, V, O with biases, one norm
    outside = (vocabulary + context) * width + width * vocabulary + vocabulary + 2 * width
    assert parameter_count(Model(preset="attn-only-2l"), vocabulary, context) == pytest.approx(
        2 * per_layer + outside, abs=vocabulary
    )
    mlp = 2 * width * 2048 + 2048 + width + 2 * width
    four = parameter_count(Model(preset="gelu-4l"), vocabulary, context)
    assert four == pytest.approx(4 * (per_layer + mlp) + outside, abs=vocabulary)


def test_a_preset_is_the_same_as_its_fields_and_other_fields_override_it():
    named = Model(preset="pythia-14m")
    assert named == Model(**PRESETS["pythia-14m"])
    assert Model(preset="pythia-14m", layers=2).layers == 2
    assert Model(preset="pythia-14m", layers=2).d_mlp == 512


def test_an_arm_may_name_a_preset_or_change_one_field():
    experiment = parse_experiment(
        TINY | {"arms": {"baseline": {"model": {"preset": "gpt2-small"}}, "deep": {"model": {"layers": 3}}},
                "ledger": {}, "influence": {}}
    )  # fmt: skip
    by_arm = {run.arm: run.model for run in experiment.runs()}
    assert by_arm["baseline"] == Model(preset="gpt2-small")
    assert by_arm["deep"] == Model(layers=3, heads=2, d_model=16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "pythia-14"}, "did you mean 'pythia-14m'"),
        ({"family": "gpt2", "positions": "rotary"}, "family gpt2 has positions: learned, got rotary"),
        ({"family": "llama", "activation": "solu"}, "no solu"),
        ({"family": "llama", "heads": 4, "kv_heads": 3}, "4 heads cannot share 3 kv_heads"),
        ({"family": "gpt2", "kv_heads": 2}, "kv_heads belongs to family llama"),
        ({"kv_heads": 2}, "family is native"),
        ({"family": "gpt_neox", "d_model": 16, "heads": 4, "rotary_share": 0.25}, "must be even"),
        ({"family": "gpt2", "d_model": 64, "heads": 4, "d_head": 8}, "d_head = d_model / heads"),
        ({"init_from": "somewhere"}, "init_from belongs to the families"),
    ],
)
def test_impossible_models_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Model(**fields)


def test_more_tokens_than_rows_is_a_vocabulary_mismatch():
    with pytest.raises(MechError, match=r"vocabulary mismatch: the tokenizer has 60 tokens, model.vocabulary is 50"):
        build_model(Model(vocabulary=50), 60, 16, 0)
    assert build_model(Model(family="gpt2", d_model=8, heads=2, vocabulary=70), 60, 16, 0).config.vocab_size == 70


def test_heads_are_where_transformers_keeps_them():
    """A head's queries alone are changed; through the bridge only that head's pattern changes."""
    tokens = torch.randint(0, VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
    for name in ("gpt2", "gpt_neox", "llama with shared keys"):
        spec = ARCHITECTURES[name]
        flat = FlatModel(build_model(spec, VOCABULARY, CONTEXT, 0, for_bridge=True))
        parts = components_of(flat, spec.heads, spec.key_value_heads)
        wrapped, start = bridge(flat.model), torch.randn(len(flat.vector), generator=torch.Generator().manual_seed(1))
        for head in range(spec.heads):
            patterns = []
            for scale in (1.0, 3.0):
                mine = parts.index == parts.names.index(f"L0H{head}.Q")
                flat.load(torch.where(mine, scale * start, start))
                _, cache = wrapped.run_with_cache(tokens, names_filter="blocks.0.attn.hook_pattern")
                patterns.append(cache["blocks.0.attn.hook_pattern"])
            moved = (patterns[0] - patterns[1]).abs().amax(dim=(0, 2, 3)) > 1e-4
            assert moved.tolist() == [index == head for index in range(spec.heads)], name


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama with shared keys"])
def test_every_detector_scores_every_head(name):
    spec = ARCHITECTURES[name]
    flat = FlatModel(build_model(spec, VOCABULARY, CONTEXT, 0, for_bridge=True))
    wrapped, probe = bridge(flat.model), probe_of(repeated(context=CONTEXT, vocabulary=VOCABULARY))
    _, cache = wrapped.run_with_cache(probe.random.tokens)
    patterns = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(spec.layers)]
    for detector in (detector for detector in DETECTORS.values() if not detector.reads_text):
        scores = detector.score(wrapped, patterns, probe)
        assert scores.shape == (spec.layers, spec.heads)
        assert bool(scores.isfinite().all())


def probe_of(sequences):
    from mech_pipeline.mechanisms.probe import Probe

    return Probe(sequences, sequences)


@pytest.fixture
def saved(tmp_path):
    """A GPT-2 checkpoint in a folder, and its model."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=16, n_embd=16, n_layer=2, n_head=2, n_inner=64))
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint", model


def run_from(folder, **fields):
    model = {"family": "gpt2", "layers": 2, "heads": 2, "d_model": 16, "init_from": str(folder)} | fields
    change = {"model": model, "ledger": {}, "influence": {}, "arms": {"baseline": {}}}
    return resolve(parse_experiment(TINY | change)).runs()[0]


def test_a_run_starts_from_the_weights_of_a_checkpoint(saved):
    folder, model = saved
    spec = run_from(folder, vocabulary=300).model
    built = build_model(spec, 280, 16, seed=5)
    tokens = torch.randint(0, 280, (2, 16))
    assert torch.allclose(built(tokens), model.eval()(tokens).logits, atol=1e-5)
    assert [name for name, _ in built.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_other_initial_weights_make_another_run_and_changed_ones_are_refused(saved):
    folder, model = saved
    before = run_from(folder, vocabulary=300)
    with torch.no_grad():
        model.transformer.wte.weight += 1
    model.save_pretrained(folder)
    after = run_from(folder, vocabulary=300)
    assert before.training_slice() != after.training_slice()
    with pytest.raises(MechError, match="is not what it was when the run was described"):
        build_model(before.model, 280, 16, 0)


@pytest.mark.parametrize(
    ("fields", "context", "message"),
    [
        ({}, 16, "vocabulary mismatch: checkpoint .* has 300 rows, the run asks for 280"),
        ({"vocabulary": 300, "layers": 3}, 16, "num_hidden_layers is 2 in .* set model.layers: 2"),
        ({"vocabulary": 300}, 32, "max_position_embeddings is 16 in .* set data.context: 16 or less"),
    ],
)
def test_a_checkpoint_of_another_shape_is_named(saved, fields, context, message):
    with pytest.raises(MechError, match=message):
        build_model(run_from(saved[0], **fields).model, 280, context, 0)


def test_a_checkpoint_that_is_not_there_or_is_pickled_is_named(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(MechError, match=r"has no \*.safetensors .* pickle format are never read"):
        run_from(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MechError, match="'nobody/nothing' is no folder here and cannot be had from the hub"):
        run_from("nobody/nothing")
