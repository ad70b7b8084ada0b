"""Mechanisms: sign, probe data made once from what they may be made of, and named errors instead of silent numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from mech_pipeline.data.documents import Document
from mech_pipeline.data.tokenised import tokenise
from mech_pipeline.data.tokenizer import train_tokenizer, vocabulary_size
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import head_weights
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.probe import Sequences
from mech_pipeline.mechanisms.prompts import continuations, contrasts, prompts
from mech_pipeline.mechanisms.readouts import attention_to, composition, loss, neuron_activation
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.requirements import all_of, needs_head
from mech_pipeline.mechanisms.source import HeldOut, Origin, ProbeSource, nothing, random
from mech_pipeline.spec.model import Model
from tests.support.models import ARCHITECTURES, trainer_of

TEXTS = ["def one(value):\n    return value\n" * 3, "x = [1, 2, 3]\n" * 4, "for item in x:\n    print(item)\n" * 3]


def source_of(tokenizer=None, name="some"):
    documents = [Document("made up", str(index), text) for index, text in enumerate(TEXTS)]
    tokenizer = tokenizer or train_tokenizer(documents, 300)
    corpus = tokenise(tokenizer, documents)
    sequences = Sequences(torch.zeros(2, 16, dtype=torch.long), torch.tensor([8, 8]))
    held = HeldOut(corpus, np.array([False, True, True]))
    origin = Origin(vocabulary_size(tokenizer), 3, lambda: tokenizer, lambda: held)
    return ProbeSource(name, sequences, sequences, origin)


def mechanism(readout, data=random, **others):
    return Mechanism(readout=readout, data=data, unit="nats", meaning="something", name="mine", **others)


@pytest.fixture
def register(monkeypatch):
    """Registers a readout under the name `mine`."""
    return lambda readout, **others: monkeypatch.setitem(MECHANISMS.loaded(), "mine", mechanism(readout, **others))


def test_a_readout_whose_smaller_values_mean_more_formed_is_negated(tiny_probe, register):
    flat = trainer_of().flat

    def size(model, data):
        return sum(parameter.square().sum() for parameter in model.parameters())

    register(size)
    up, gradient = MECHANISMS["mine"].value(flat.model, tiny_probe), mechanism_gradient("mine", flat, tiny_probe)
    assert torch.allclose(gradient, 2 * flat.vector)
    register(size, sign=-1)
    assert float(MECHANISMS["mine"].value(flat.model, tiny_probe).detach()) == -float(up.detach())
    assert torch.equal(mechanism_gradient("mine", flat, tiny_probe), -gradient)


def first(model):
    return next(model.parameters())


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (lambda model, data: first(model).sum().item(), "mechanism mine is not differentiable: .* without a graph"),
        (lambda model, data: first(model).detach().sum(), "mechanism mine is not differentiable: .* without a graph"),
        (lambda model, data: (first(model) > 0).sum(), "mechanism mine is not differentiable: .* without a graph"),
        (lambda model, data: first(model).sign().sum(), "mine is not differentiable: its readout uses sign"),
        (lambda model, data: first(model).sum() + first(model).round().sum(), "mine is not diff.* uses round"),
        (lambda model, data: torch.ones((), requires_grad=True) * 2, "no parameter of this NativeModel enters"),
        (lambda model, data: first(model).sum() / 0, "mechanism mine is -?inf, so it has no gradient"),
        (lambda model, data: (first(model) * 0).sum().sqrt(), "gradient of mechanism mine is not finite"),
    ],
    ids=["item", "detach", "comparison", "sign", "round", "no parameter", "infinite", "root of 0"],
)
def test_a_readout_without_a_gradient_has_a_value_and_a_named_error(readout, message, tiny_probe, register):
    register(readout)
    flat = trainer_of().flat
    assert MECHANISMS["mine"].value(flat.model, tiny_probe).shape == ()
    with pytest.raises(MechError, match=message):
        mechanism_gradient("mine", flat, tiny_probe)


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (
            lambda model, data: first(model),
            r"mechanism mine: its readout gives a tensor of shape \[13, 8\] and type float",
        ),
        (lambda model, data: "much", "mechanism mine: its readout gives a str"),
        (lambda model, data: head_weights(model, 7, 0).key.sum(), "mechanism mine: needs head 0 of layer 7"),
    ],
    ids=["many numbers", "text", "no such layer"],
)
def test_what_is_no_number_is_never_one(readout, message, tiny_probe, register):
    register(readout)
    with pytest.raises(MechError, match=message):
        MECHANISMS["mine"].value(trainer_of().flat.model, tiny_probe)


def test_a_fault_inside_a_readout_says_whose_it_was(tiny_probe):
    with pytest.raises(ZeroDivisionError) as caught:
        mechanism(lambda model, data: 1 / 0).value(trainer_of().flat.model, tiny_probe)
    assert caught.value.__notes__ == ["while mechanism mine was computed"]


def test_a_relu_neuron_that_is_off_has_a_gradient_of_zero(tiny_probe, register):
    register(lambda model, data: torch.relu(first(model).sum() - 1e6))
    assert not mechanism_gradient("mine", trainer_of().flat, tiny_probe).any()


def test_probe_data_are_made_once_and_moved_with_everything_inside(tiny_probe):
    calls = []

    def data(source):
        calls.append(source.mechanism)
        return {"sequences": source.random, "others": [source.random.tokens, "text"]}

    made = tiny_probe.of("a", data)
    assert tiny_probe.of("a", data) is made
    moved = tiny_probe.of("a", data, torch.device("meta"))
    assert moved["sequences"].tokens.is_meta
    assert moved["others"][0].is_meta
    assert moved["others"][1] == "text"
    assert tiny_probe.of("b", data) is not made
    assert calls == ["a", "b"]


def test_a_probe_of_sequences_alone_says_that_it_has_no_text(tiny_probe):
    with pytest.raises(MechError, match="mine: probe data of mechanism mine need a run's tokenizer or text"):
        mechanism(loss, lambda source: prompts(source, ["x"])).value(trainer_of().flat.model, tiny_probe)


def test_random_streams_and_windows_are_the_same_each_time_and_differ_by_name():
    one, again, other = source_of(), source_of(), source_of(name="other")
    draw = [source.generator().integers(0, 1 << 40, 4).tolist() for source in (one, one, again, other)]
    assert draw[0] == draw[1] == draw[2] != draw[3]
    windows = one.held_out_windows(20, 6)
    assert torch.equal(windows, again.held_out_windows(20, 6))
    held = [document.tolist() for document in one.held_out_documents()]
    assert one.tokenizer.decode(held[0]) == TEXTS[1]
    for row in windows.tolist():
        assert any(row == document[at : at + 6] for document in held for at in range(len(document))), "held-out text"
    with pytest.raises(MechError, match="windows of 17 tokens do not fit: the context has 16"):
        one.held_out_windows(1, 17)


def test_prompts_are_padded_on_the_right_and_know_where_they_end():
    source = source_of()
    made = contrasts(source, [("x = (1", ")", "]"), ("[", "]", ")")])
    ends = [source.tokenizer.decode([int(made.tokens[row, made.position[row]])]) for row in range(2)]
    assert ends == ["1", "["]
    assert source.tokenizer.decode(made.correct.tolist()) == ")]"
    assert source.tokenizer.decode(made.wrong.tolist()) == "])"
    marked = continuations(source, [("x = ", "[1"), ("(", ")")])
    assert source.tokenizer.decode(marked.tokens[marked.chosen].tolist()) == "[1)"


def test_a_prompt_that_does_not_fit_is_named_with_what_fits():
    source = source_of()
    for texts, message in (
        (["x", "y" * 17], r"prompt 2, 'y+', does not fit: it has 17 tokens, the context 16"),
        (["x", ""], "prompt 2, '', does not fit the vocabulary of 293 tokens: it is empty"),
        ([], "there are no prompts"),
    ):
        with pytest.raises(MechError, match=message):
            prompts(source, texts)
    with pytest.raises(
        MechError, match=r"wrong answer of prompt 1, 'qz', must be one token, but is 2 .* 293: 'q', 'z'"
    ):
        contrasts(source, [("x", "y", "qz")])
    with pytest.raises(MechError, match="prompt 1 with its continuation, .* it has 20 tokens"):
        continuations(source, [("y" * 10, "z" * 10)])


@pytest.mark.parametrize("unknown", ["[UNK]", None], ids=["a token for unknown words", "none"])
def test_a_tokenizer_that_lacks_a_word_says_which(unknown):
    words = {"def": 0, "x": 1} | ({unknown: 2} if unknown else {})
    model = models.WordLevel(words, unk_token=unknown) if unknown else models.BPE({"d": 0, "x": 1}, [])
    tokenizer = Tokenizer(model)
    if unknown:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    source = dataclasses.replace(
        source_of(), origin=dataclasses.replace(source_of().origin, vocabulary=3, read_tokenizer=lambda: tokenizer)
    )
    assert prompts(source, ["x"]).tokens.tolist() == [[1]]
    with pytest.raises(
        MechError, match="prompt 1, 'x y', does not fit the vocabulary of 3 tokens: it has no token for 'y'"
    ):
        prompts(source, ["x y"])


def test_requirements_are_sentences_about_the_spec():
    small, large = ARCHITECTURES["attention-only"], Model(layers=8, heads=8, d_mlp=256)
    for readout, others, message in (
        (neuron_activation(0, 0), {}, "needs neuron 0 of layer 0; the model is attention-only (no model.d_mlp)"),
        (attention_to(2, 1), {}, "needs head 1 of layer 2; the model has layers 0 to 1 with heads 0 to 1"),
        (composition("K", (1, 0), (3, 0)), {}, "needs head 0 of layer 3; the model has layers 0 to 1 with heads 0 to 1"),
        (loss, {"requires": needs_head(0, 5)}, "needs head 5 of layer 0; the model has layers 0 to 1 with heads 0 to 1"),
        (loss, {"requires": all_of(needs_head(0, 0), needs_head(1, 2))}, "needs head 2 of layer 1; the model has "
         "layers 0 to 1 with heads 0 to 1"),
    ):  # fmt: skip
        assert mechanism(readout, nothing, **others).missing(small) == message
        assert mechanism(readout, nothing, **others).missing(large) is None
    assert neuron_activation(0, 256).requires(large) == (
        "needs neuron 256 of layer 0; the model has layers 0 to 7 with neurons 0 to 255"
    )


@pytest.mark.parametrize("field", ["unit", "meaning", "version"])
def test_a_mechanism_says_what_it_is(field):
    fields = {"readout": loss, "data": nothing, "unit": "nats", "meaning": "something"}
    with pytest.raises(ValueError, match="unit, meaning and version must not be empty"):
        Mechanism(**fields | {field: ""})
