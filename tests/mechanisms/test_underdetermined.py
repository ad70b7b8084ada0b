"""The language whose training sequences two rules label alike, and what is measured where they disagree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.languages import parentheses
from mech_pipeline.data.languages.parentheses import NO, YES, is_equal_count, is_nested
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.tasks.parentheses import SEQUENCES, disagreeing, disagreeing_inside, label_share, labelled
from mech_pipeline.spec.data import Corpus, Generated
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.seeds import numpy_generator
from tests.support.answering import Answering
from tests.support.models import prompt_probe

CONTEXT = 22
NAMES = ("parentheses_logit_difference", "parentheses_accuracy", "nested_rule_preference", "nested_rule_share")


def corpus(documents=300, **options):
    return Corpus.model_validate({"generated": {"language": "parentheses", "documents": documents} | options})


def parts(document):
    """(brackets, label)."""
    begin, *brackets, label = document.text.split(" ")
    assert begin == parentheses.BEGIN
    return "".join(brackets), label


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(list(read_corpus(corpus())), 300)


@pytest.fixture(scope="module")
def probe(tokenizer):
    return prompt_probe(tokenizer, CONTEXT)


def elevations(brackets):
    """Openers minus closers after each bracket, the slow obvious way."""
    return [brackets[:end].count("(") - brackets[:end].count(")") for end in range(1, len(brackets) + 1)]


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]))
def test_both_rules_give_every_training_sequence_its_label(seed, below_zero):
    brackets, label = parts(next(iter(read_corpus(corpus(1, seed=seed, below_zero=below_zero)))))
    assert len(brackets) == parentheses.BRACKETS
    assert parentheses.label(brackets, "nested") == parentheses.label(brackets, "equal_count") == label
    assert (label == YES) == (elevations(brackets)[-1] == 0)
    assert (label == YES) == (elevations(brackets)[-1] == 0 and min(elevations(brackets)) >= 0)
    if below_zero != 0.5:
        assert (min(elevations(brackets)) < 0) == (label == NO and below_zero == 1)


@given(st.integers(0, 2**32))
def test_the_rules_disagree_on_every_sequence_drawn_for_that(seed):
    brackets = parentheses.disagreeing_word(numpy_generator(seed, "test"))
    assert elevations(brackets)[-1] == 0
    assert min(elevations(brackets)) < 0
    assert parentheses.label(brackets, "nested") == NO
    assert parentheses.label(brackets, "equal_count") == YES


@given(st.text(alphabet="()", min_size=1, max_size=12))
def test_the_rules_are_what_their_names_say(brackets):
    left = brackets
    while "()" in left:
        left = left.replace("()", "")
    assert is_nested(brackets) == (left == "")
    assert is_equal_count(brackets) == (left == ")" * (len(left) // 2) + "(" * (len(left) // 2))


def test_half_of_the_sequences_are_nested():
    labels = [parts(document)[1] for document in read_corpus(corpus(1000))]
    assert 0.45 < labels.count(YES) / 1000 < 0.55, "standard error 0.016"


@pytest.mark.parametrize("rule", ["nested", "equal_count"])
def test_a_share_of_disagreeing_sequences_is_labelled_by_the_chosen_rule(rule):
    found = [parts(document) for document in read_corpus(corpus(1000, disagreeing=0.3, rule=rule))]
    apart = [(brackets, label) for brackets, label in found if is_nested(brackets) != is_equal_count(brackets)]
    assert 0.25 < len(apart) / 1000 < 0.35, "standard error 0.014"
    assert {label for _, label in apart} == {NO if rule == "nested" else YES}
    assert all((label == YES) == is_nested(brackets) for brackets, label in set(found) - set(apart))


def test_options_leave_earlier_fingerprints_alone_and_belong_to_their_language():
    assert fingerprint(Generated(language="dyck", documents=24000)) == fingerprint(
        {"language": "dyck", "documents": 24000, "seed": 0}
    )
    assert fingerprint(corpus(disagreeing=0.1)) != fingerprint(corpus())
    for option in ({"disagreeing": 0.1}, {"rule": "equal_count"}, {"below_zero": 0.5}):
        with pytest.raises(
            ValidationError, match=f"{next(iter(option))} is an option of language parentheses, and the"
        ):
            Generated(language="ioi", **option)
    assert Generated(language="ioi").options() == {}


def texts(contrast, tokenizer):
    """The brackets of each sequence."""
    decoded = tokenizer.decode_batch(contrast.tokens.tolist())
    return [text.removeprefix(parentheses.BEGIN).replace(" ", "") for text in decoded]


def test_the_probe_has_the_sequences_its_mechanisms_are_about(probe, tokenizer):
    yes, no = (tokenizer.encode(f" {label}").ids[0] for label in (YES, NO))
    agreed = probe.of("test", labelled)
    brackets = [
        tokenizer.decode(row.tolist()).removeprefix(parentheses.BEGIN).replace(" ", "") for row in agreed.tokens
    ]
    assert [token == yes for token in agreed.correct.tolist()] == [is_nested(each) for each in brackets]
    assert all(is_nested(each) == is_equal_count(each) for each in brackets)
    assert agreed.correct.tolist().count(yes) == SEQUENCES // 2
    apart = probe.of("test", disagreeing)
    brackets = texts(apart, tokenizer)
    assert all(is_equal_count(each) and not is_nested(each) for each in brackets)
    assert apart.correct.unique().tolist() == [no]
    assert apart.wrong.unique().tolist() == [yes]
    assert (agreed.position == CONTEXT - 2).all()
    inside = texts(probe.of("test", disagreeing_inside), tokenizer)
    assert all(is_equal_count(each) and not is_nested(each) and each[0] == "(" and each[-1] == ")" for each in inside)


def brackets_of(text):
    return text.removeprefix(parentheses.BEGIN).replace(" ", "")


def judge(rule, tokenizer):
    """A model that goes by one rule."""
    return Answering(lambda text: parentheses.label(brackets_of(text), rule), tokenizer)


@pytest.mark.parametrize(("rule", "preference", "share"), [("nested", 3.0, 1.0), ("equal_count", -3.0, 0.0)])
def test_models_that_go_by_one_rule_are_told_apart_only_where_the_rules_disagree(
    probe, tokenizer, rule, preference, share
):
    difference, accuracy, preferred, preferred_share = (
        float(MECHANISMS[name].value(judge(rule, tokenizer), probe)) for name in NAMES
    )
    assert (difference, accuracy) == (pytest.approx(3), 1)
    assert (preferred, preferred_share) == (pytest.approx(preference), share)
    inside = MECHANISMS["nested_rule_preference_inside"].value(judge(rule, tokenizer), probe)
    assert float(inside) == pytest.approx(preference)


def test_a_model_that_looks_at_the_ends_alone_seems_nested_only_where_they_tell(probe, tokenizer):
    def ends(text):
        brackets = brackets_of(text)
        return YES if brackets[0] == "(" and brackets[-1] == ")" else NO

    model = Answering(ends, tokenizer)
    assert float(MECHANISMS["nested_rule_preference"].value(model, probe)) > 1
    assert float(MECHANISMS["nested_rule_preference_inside"].value(model, probe)) == pytest.approx(-3)


def test_a_model_that_does_not_look_knows_half_of_the_labels(probe, tokenizer):
    class Always(torch.nn.Module):
        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, tokenizer.get_vocab_size())
            logits[..., tokenizer.encode(f" {YES}").ids[0]] = 1.0
            return logits

    assert float(label_share(Always(), probe.of("test", labelled))) == 0.5
    assert float(MECHANISMS["parentheses_logit_difference"].value(Always(), probe)) == 0


def test_a_vocabulary_without_the_labels_and_a_short_context_are_named(tokenizer):
    words = [*read_corpus(Corpus.model_validate({"generated": {"language": "dyck", "documents": 200}}))]
    with pytest.raises(MechError, match=r"must be one token, but is \d in this vocabulary"):
        prompt_probe(train_tokenizer(words, 300), 200).of("test", labelled)
    with pytest.raises(MechError, match="does not fit: it has 21 tokens, the context 20"):
        prompt_probe(tokenizer, 20).of("test", disagreeing)
