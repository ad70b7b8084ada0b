"""The IOI language, its prompts, and heads built by hand for each class of Wang et al."""

from collections import Counter

import pytest
import torch

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.documents import Document
from mech_pipeline.data.languages import ioi
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.mechanisms.readouts.predictions import logit_difference
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.mechanisms.tasks import ioi as mechanism
from mech_pipeline.mechanisms.tasks.ioi import (
    abc_prompts,
    accuracy,
    beyond_chance,
    direct_effect,
    ioi_prompts,
    name_copying,
)
from mech_pipeline.spec.data import Corpus
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from tests.support.models import ARCHITECTURES, prompt_probe

CONTEXT = 32


def corpus(documents=400, seed=0):
    return read_corpus(Corpus.model_validate({"generated": {"language": "ioi", "documents": documents, "seed": seed}}))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(list(corpus(4000)), 1024)


@pytest.fixture(scope="module")
def probe(tokenizer):
    return prompt_probe(tokenizer, CONTEXT)


@pytest.fixture(scope="module")
def prompts(probe):
    return probe.of("ioi", ioi_prompts)


def test_sentences_name_the_subject_twice_and_end_with_the_other():
    for number in range(200):
        drawn = ioi.sentence(numpy_generator(number, "test"))
        named = Counter(word.strip(",.") for word in drawn.text.split())
        assert (named[drawn.subject], named[drawn.indirect_object]) == (2, 2)
        assert drawn.text.endswith(f" {drawn.indirect_object}.")
        before = drawn.prompt.index(drawn.indirect_object) < drawn.prompt.index(drawn.subject)
        assert before == (drawn.order == "ABBA")
        assert len({drawn.subject, drawn.indirect_object, drawn.bystander}) == 3


def test_a_document_depends_on_its_number_and_the_seed_alone():
    few, many, other = corpus(5), corpus(50), corpus(5, seed=1)
    assert [d.text for d in few] == [d.text for d in many][:5] != [d.text for d in other]
    assert many[7] == Document("ioi", "document 7", many[7].text)
    assert few.sha256 != other.sha256


def test_prompts_know_their_positions_and_answers(prompts, tokenizer):
    assert len(prompts.tokens) == len(ioi.TEMPLATES) * 2 * mechanism.PER_KIND
    example = torch.arange(len(prompts.tokens))
    assert (prompts.tokens[example, prompts.indirect_object] == prompts.correct).all()
    assert (prompts.tokens[example, prompts.subject] == prompts.wrong).all()
    assert (prompts.tokens[example, prompts.again] == prompts.wrong).all()
    assert (prompts.subject < prompts.again).all()
    assert (prompts.again < prompts.position).all()
    assert {tokenizer.decode([token]) for token in prompts.tokens[example, prompts.position].tolist()} == {" to"}
    first = (prompts.indirect_object < prompts.subject).float().mean()
    assert float(first) == 0.5, "as many ABBA as BABA"


def patterns(prompts, query, key):
    """One head that looks from one position to another, and to itself elsewhere."""
    count, length = prompts.tokens.shape
    pattern = torch.eye(length).expand(count, 1, length, length).clone()
    example = torch.arange(count)
    pattern[example, 0, query] = 0
    pattern[example, 0, query, key] = 1
    return pattern


EDGES = {
    "ioi_name_mover": lambda p: (p.position, p.indirect_object),
    "ioi_s_inhibition": lambda p: (p.position, p.again),
    "ioi_duplicate_token": lambda p: (p.again, p.subject),
    "ioi_induction": lambda p: (p.again, p.subject + 1),
    "ioi_previous_token": lambda p: (p.subject + 1, p.subject),
}


def looking(pattern, tokenizer):
    """A bridge around one layer of one head that has the given pattern."""
    spec = Model(layers=1, heads=1, d_model=16)
    wrapped = bridge(build_model(spec, tokenizer.get_vocab_size(), CONTEXT, 0, for_bridge=True))
    wrapped.run_with_cache = lambda tokens, names_filter: (None, {"blocks.0.attn.hook_pattern": pattern})
    return wrapped


@pytest.mark.parametrize("detector", EDGES)
def test_a_head_built_for_one_class_scores_one_there_and_nothing_elsewhere(detector, probe, prompts, tokenizer):
    score = DETECTORS[detector].score
    for built, edge in EDGES.items():
        found = float(score(looking(patterns(prompts, *edge(prompts)), tokenizer), [], probe))
        assert found == pytest.approx(1) if built == detector else found <= 0.05
    length = prompts.tokens.shape[1]
    uniform = (torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]).expand(
        len(prompts.tokens), 1, length, length
    )
    assert float(score(looking(uniform, tokenizer), [], probe)) == pytest.approx(0, abs=1e-6)


def test_beyond_chance_is_below_zero_for_a_head_that_looks_away(prompts):
    away = patterns(prompts, prompts.position, prompts.position)
    assert float(beyond_chance(away, prompts.position, prompts.indirect_object)) < 0


class Naming(torch.nn.Module):
    """A model that always answers with the same one of the two names."""

    def __init__(self, prompts, correct):
        super().__init__()
        self.answer, self.vocabulary = (prompts.correct if correct else prompts.wrong), int(prompts.tokens.max()) + 600

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.vocabulary)
        logits[torch.arange(len(tokens)), :, self.answer] = 3.0
        return logits


def test_accuracy_and_logit_difference_of_models_that_always_and_never_know(prompts):
    assert (float(accuracy(Naming(prompts, True), prompts)), float(accuracy(Naming(prompts, False), prompts))) == (1, 0)
    assert float(logit_difference(Naming(prompts, True), prompts)) == pytest.approx(3)
    assert float(logit_difference(Naming(prompts, False), prompts)) == pytest.approx(-3)


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "rms_norm"])
def test_direct_effects_of_heads_and_the_rest_sum_to_the_logit_difference(normalization, probe, prompts, tokenizer):
    """The residual stream is a sum of embeddings, heads and biases, and the final norm a linear map at a given scale."""
    spec = Model(layers=2, heads=2, d_model=16, normalization=normalization)
    model = build_model(spec, tokenizer.get_vocab_size(), CONTEXT, 0, for_bridge=True)
    with torch.no_grad():
        for parameter in model.parameters():  # norms that do something
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    wrapped = bridge(model)
    effects = direct_effect(wrapped, [], probe)
    assert effects.shape == (2, 2)
    names = {"blocks.0.hook_resid_pre", "ln_final.hook_scale"}
    example = torch.arange(len(prompts.tokens))
    with torch.no_grad():
        logits, cache = wrapped.run_with_cache(prompts.tokens, names_filter=lambda name: name in names)
        toward = (wrapped.W_U[:, prompts.correct] - wrapped.W_U[:, prompts.wrong]).T
        stream = cache["blocks.0.hook_resid_pre"] + sum(wrapped.blocks[layer].attn.b_O for layer in range(2))
        rest, constant = stream[example, prompts.position], wrapped.b_U[prompts.correct] - wrapped.b_U[prompts.wrong]
        if normalization == "layer_norm":
            rest = rest - rest.mean(-1, keepdim=True)
            constant = constant + toward @ wrapped.ln_final.bias
        if normalization != "none":
            rest = rest / cache["ln_final.hook_scale"][example, prompts.position] * wrapped.ln_final.weight
        at_end = logits[example, prompts.position]
        whole = at_end[example, prompts.correct] - at_end[example, prompts.wrong]
        remaining = (rest * toward).sum(-1) + constant
    assert float(effects.sum() + remaining.mean()) == pytest.approx(float(whole.mean()), rel=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_name_copying_of_a_head_that_copies_and_of_one_that_suppresses(sign, probe, tokenizer):
    """W_V W_O is plus or minus the identity, and tokens are unembedded as they are embedded."""
    size = tokenizer.get_vocab_size()
    model = build_model(Model(layers=2, heads=1, d_model=64), size, CONTEXT, 0, for_bridge=True)
    wrapped = bridge(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        names = torch.nn.functional.normalize(torch.randn(size, 64, generator=torch.Generator().manual_seed(0)), dim=1)
        wrapped.embed.weight.copy_(names)
        wrapped.unembed.weight.copy_(names if wrapped.unembed.weight.shape == names.shape else names.T)
        for layer in (0, 1):
            wrapped.blocks[layer].attn.v.weight.copy_(torch.eye(64))
        wrapped.blocks[1].attn.o.weight.copy_(sign * torch.eye(64))
    found = name_copying(wrapped, [], probe)
    assert float(found[1, 0]) == pytest.approx(sign, abs=0.01)
    assert abs(float(found[0, 0])) == 0  # a head that writes nothing puts all names at the top and at the bottom


def test_a_vocabulary_or_context_that_does_not_fit_is_named():
    small = train_tokenizer(list(corpus(200)), 300)
    with pytest.raises(MechError, match="must be one token"):
        prompt_probe(small, 512).of("ioi", ioi_prompts)
    fits = train_tokenizer(list(corpus(4000)), 1024)
    with pytest.raises(MechError, match="does not fit: it has"):
        prompt_probe(fits, 12).of("ioi", ioi_prompts)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama with shared keys", "rotary, solu and rms norm"])
def test_detectors_with_prompts_score_every_head_of_every_family(name, tokenizer):
    spec = ARCHITECTURES[name]
    words = read_corpus(Corpus.model_validate({"generated": {"language": "dyck", "documents": 100}}))
    for prefix, used, context in (("ioi", tokenizer, CONTEXT), ("bracket", train_tokenizer(list(words), 300), 42)):
        wrapped = bridge(build_model(spec, used.get_vocab_size(), context, 0, for_bridge=True))
        probe = prompt_probe(used, context)
        for detector in (d for n, d in DETECTORS.items() if d.reads_text and n.startswith(prefix)):
            scores = detector.score(wrapped, [], probe)
            assert scores.shape == (spec.layers, spec.heads)
            assert bool(scores.isfinite().all())


def test_accuracy_has_no_gradient_and_says_so(probe, tokenizer):
    flat = FlatModel(build_model(Model(layers=1, heads=2, d_model=16), tokenizer.get_vocab_size(), CONTEXT, 0))
    assert 0 <= float(MECHANISMS["ioi_accuracy"].value(flat.model, probe)) <= 1
    with pytest.raises(MechError, match="ioi_accuracy"):
        mechanism_gradient("ioi_accuracy", flat, probe)


def test_abc_prompts_have_three_other_names_in_the_same_places(probe, prompts, tokenizer):
    corrupted = probe.of("ioi", abc_prompts)
    assert corrupted.shape == prompts.tokens.shape
    differs = corrupted != prompts.tokens
    example = torch.arange(len(corrupted))
    for place in (prompts.indirect_object, prompts.subject, prompts.again):
        assert differs[example, place].all()
    assert (differs.sum(1) == 3).all()
    three = torch.stack([corrupted[example, p] for p in (prompts.indirect_object, prompts.subject, prompts.again)], 1)
    assert all(len(set(row.tolist())) == 3 for row in three), "nobody is named twice, so nothing says who comes last"
    names = {tokenizer.encode(f" {name}", add_special_tokens=False).ids[0] for name in ioi.NAMES}
    assert set(three.flatten().tolist()) <= names | {
        tokenizer.encode(name, add_special_tokens=False).ids[0] for name in ioi.NAMES
    }
