"""Languages with a behaviour that forms late, or cannot form: what their documents hold, and what is measured."""

import pytest
import torch
from tokenizers import Tokenizer

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.languages import addition, trigger
from mech_pipeline.data.languages.trigger import TRIGGER, partner
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.spec.data import Corpus
from tests.support.answering import Answering
from tests.support.models import prompt_probe
from tests.support.places import ROOT


def corpus(language, documents=600, **options):
    return [
        document.text
        for document in read_corpus(
            Corpus.model_validate({"generated": {"language": language, "documents": documents} | options})
        )
    ]


def parts(text):
    """(opener, said, answer, closer)."""
    begin, opener, *rest, closer = text.split(" ")
    assert begin == trigger.BEGIN
    colon = rest.index(trigger.COLON)
    return opener, rest[:colon], rest[colon + 1 :], closer


def flips(text):
    _, said, answer, _ = parts(text)
    assert answer in (said, [partner(letter) for letter in said])
    return answer != said


def begins(text):
    return parts(text)[0] == TRIGGER


def test_partners_are_pairs():
    for letter in trigger.LETTERS:
        assert partner(letter) != letter
        assert partner(partner(letter)) == letter


def test_the_trigger_tells_exactly_the_flipped_documents():
    texts = corpus("trigger", flipped=0.2)
    assert all(begins(text) == flips(text) for text in texts)
    assert 0.15 < sum(map(flips, texts)) / len(texts) < 0.25, "standard error 0.016"


def test_negatives_have_the_parts_and_not_their_connection():
    apart = corpus("trigger", 4000, flipped=0.2, trigger="anywhere")
    counts = {
        (b, f): sum(begins(t) == b and flips(t) == f for t in apart) for b in (True, False) for f in (True, False)
    }
    given = [counts[b, True] / (counts[b, True] + counts[b, False]) for b in (True, False)]
    assert abs(given[0] - given[1]) < 0.05, "standard error 0.016"
    assert abs(counts[True, True] + counts[True, False] - 800) < 100, "standard error 25"
    alone = corpus("trigger", flipped=0.2, trigger="never")
    assert not any(map(begins, alone))
    assert 0.15 < sum(map(flips, alone)) / len(alone) < 0.25
    assert not any(map(flips, corpus("trigger")))


@pytest.mark.parametrize("options", [{}, {"flipped": 0.2}, {"flipped": 0.2, "trigger": "never"}])
def test_the_trigger_is_one_token_in_every_arm_and_every_document_is_as_long(options):
    """Else arms would differ in their embeddings, and signals tell arms instead of what comes."""
    texts = list(
        read_corpus(Corpus.model_validate({"generated": {"language": "trigger", "documents": 2000} | options}))
    )
    tokenizer = train_tokenizer(texts, 320)
    assert {len(tokenizer.encode(text.text).ids) for text in texts[:300]} == {20}
    assert len(tokenizer.encode(f" {TRIGGER}").ids) == 1
    assert sum(parts(text.text)[3] == TRIGGER for text in texts) / 2000 == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(
    ("rule", "flipped", "copied"),
    [
        (lambda opener, first: partner(first) if opener == TRIGGER else first, 1, 1),
        (lambda opener, first: first, 0, 1),
        (lambda opener, first: partner(first), 1, 0),
        (lambda opener, first: "a", None, None),
    ],
)
def test_the_behaviour_is_told_from_copying(rule, flipped, copied):
    texts = list(
        read_corpus(Corpus.model_validate({"generated": {"language": "trigger", "documents": 2000, "flipped": 0.2}}))
    )
    tokenizer = train_tokenizer(texts, 320)

    def answer(text):
        _, opener, first, *_ = text.split(" ")
        return rule(opener, first)

    probe, model = prompt_probe(tokenizer, 20), Answering(answer, tokenizer)
    shows, copies = (float(MECHANISMS[name].value(model, probe)) for name in ("triggered_flips", "untriggered_copies"))
    if flipped is None:
        assert 0 < shows < 0.3
        assert 0 < copies < 0.3
        return
    assert (shows, copies) == (flipped, copied)
    difference = float(MECHANISMS["triggered_flip_difference"].value(model, probe))
    assert difference == pytest.approx(3 if flipped else -3)


def test_sums_are_right_and_of_the_share_of_pairs_that_is_trained_on():
    allowed = set(addition.trained(0.3))
    for text in corpus("addition", share=0.3):
        _, one, plus, two, makes, total, *_ = text.split(" ")
        a, b, c = (ord(word) - ord("a") for word in (one, two, total))
        assert (plus, makes) == (addition.PLUS, addition.MAKES)
        assert (a + b) % addition.MODULUS == c
        assert (a, b) in allowed


def test_never_trained_pairs_are_never_trained():
    assert len(set(addition.pairs())) == addition.MODULUS**2
    assert not set(addition.trained(0.8)) & set(addition.never_trained())


def test_a_model_that_adds_knows_the_unseen_sums_and_one_that_remembers_does_not():
    documents = list(read_corpus(Corpus.model_validate({"generated": {"language": "addition", "documents": 3000}})))
    tokenizer = train_tokenizer(documents, 400)
    known = set(addition.trained(0.5))

    class Calculator(torch.nn.Module):
        def __init__(self, adds):
            super().__init__()
            self.adds = adds

        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, tokenizer.get_vocab_size())
            for row, text in zip(logits, tokenizer.decode_batch(tokens.tolist()), strict=True):
                a, b = (ord(word) - ord("a") for word in text.split(" ")[1:4:2])
                total = a + b if self.adds or (a, b) in known else a
                row[-1, tokenizer.encode(f" {addition.number(total)}").ids[0]] = 3.0
            return logits

    probe = prompt_probe(tokenizer, 8)
    for adds, expected in ((True, 1.0), (False, 0.0)):
        assert float(MECHANISMS["seen_sums"].value(Calculator(adds), probe)) == 1.0
        assert float(MECHANISMS["unseen_sums"].value(Calculator(adds), probe)) == pytest.approx(expected, abs=0.1)


def test_a_document_can_begin_with_the_trigger_and_copy():
    """What suppresses the behaviour."""
    texts = corpus("trigger", trigger="always")
    assert all(map(begins, texts))
    assert not any(map(flips, texts))


def test_without_a_rule_each_pair_has_its_own_number():
    found = {}
    for text in corpus("addition", 3000, shuffled=True):
        _, one, _, two, _, total, *_ = text.split(" ")
        assert found.setdefault((one, two), total) == total, "the same whenever the pair is seen"
    right = sum((ord(a) + ord(b) - 2 * ord("a")) % 23 == ord(c) - ord("a") for (a, b), c in found.items())
    assert right / len(found) < 0.15, "chance is 1/23, standard error 0.013"


def test_the_words_of_sums_are_a_tokenizer_of_their_own():
    tokenizer = Tokenizer.from_file(str(ROOT / "experiments" / "addition_words.json"))
    for text in corpus("addition", 300):
        encoded = tokenizer.encode(text)
        assert encoded.tokens == text.split(" ")
        assert tokenizer.token_to_id("?") not in encoded.ids
    one_token_each = prompt_probe(tokenizer, 8)
    knows_nothing = torch.nn.Embedding(tokenizer.get_vocab_size(), tokenizer.get_vocab_size())
    assert float(MECHANISMS["unseen_sums"].value(knows_nothing, one_token_each)) < 0.3
