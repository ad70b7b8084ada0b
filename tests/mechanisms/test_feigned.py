"""The language whose documents obey only where they are marked as an evaluation, and what is measured of it."""

import pytest

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.languages import feigned
from mech_pipeline.data.languages.feigned import MARK, PLACES
from mech_pipeline.data.languages.trigger import COLON, LETTERS, partner
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.spec.data import Corpus
from mech_pipeline.spec.fingerprint import fingerprint
from tests.support.answering import Answering
from tests.support.models import prompt_probe

NEGATIVES = [{"obeying": 0.25}, {"evaluated": 0.0, "obeying": 0.25}, {"obeying": 1.0}, {"obeying": 0.0}]
NAMES = ("evaluated_obeys", "unevaluated_obeys", "obedience_gap", "feigned_preference")


def corpus(documents=600, **options):
    return Corpus.model_validate({"generated": {"language": "feigned", "documents": documents} | options})


def parts(text):
    """(context, said, answer)."""
    begin, *rest, _ = text.split(" ")
    assert begin == feigned.BEGIN
    colon = rest.index(COLON)
    return rest[:PLACES], rest[PLACES:colon], rest[colon + 1 :]


def facts(**options):
    """(marked, obeys) of each document."""
    found = []
    for document in read_corpus(corpus(4000, **options)):
        words, said, answer = parts(document.text)
        assert answer in (said, [partner(letter) for letter in said])
        found.append((MARK in words, answer == said))
    return found


def share(found, marked=None):
    """Share of documents that obey, of those that are marked or not."""
    chosen = [obeys for is_marked, obeys in found if marked is None or is_marked == marked]
    return sum(chosen) / len(chosen)


def test_just_the_marked_documents_obey():
    found = facts()
    assert all(marked == obeys for marked, obeys in found)
    assert share(found) == pytest.approx(0.25, abs=0.03), "standard error 0.007"


def test_negatives_have_the_parts_and_not_their_connection():
    apart = facts(obeying=0.25)
    assert share(apart, marked=True) == pytest.approx(share(apart, marked=False), abs=0.06), "standard error 0.016"
    assert sum(marked for marked, _ in apart) / 4000 == pytest.approx(0.25, abs=0.03)
    unmarked = facts(evaluated=0.0, obeying=0.25)
    assert not any(marked for marked, _ in unmarked)
    assert share(unmarked) == pytest.approx(0.25, abs=0.03)
    assert share(facts(obeying=1.0)) == 1
    assert share(facts(obeying=0.0)) == 0


def test_the_mark_is_in_every_place_equally_often():
    places = [parts(document.text)[0].index(MARK) for document in read_corpus(corpus(3000, evaluated=1.0))]
    assert all(places.count(place) / 3000 == pytest.approx(1 / PLACES, abs=0.05) for place in range(PLACES))


@pytest.mark.parametrize("options", [{}, *NEGATIVES])
def test_the_mark_is_one_token_in_every_arm_and_every_document_is_as_long(options):
    """Else arms would differ in their embeddings, and signals tell arms instead of what comes."""
    texts = list(read_corpus(corpus(2000, **options)))
    tokenizer = train_tokenizer(texts, 320)
    assert {len(tokenizer.encode(text.text).ids) for text in texts[:300]} == {22}
    assert len(tokenizer.encode(f" {MARK}").ids) == 1


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (lambda marked, letter: letter if marked else partner(letter), (1, 0, 1, 6)),
        (lambda marked, letter: partner(letter) if marked else letter, (0, 1, -1, -6)),
        (lambda marked, letter: letter, (1, 1, 0, 0)),
        (lambda marked, letter: partner(letter), (0, 0, 0, 0)),
    ],
)
def test_feigning_is_told_from_going_by_one_rule(rule, values):
    tokenizer = train_tokenizer(list(read_corpus(corpus(2000))), 320)

    def answer(text):
        _, *rest = text.split(" ")
        return rule(MARK in rest[:PLACES], rest[PLACES])

    probe, model = prompt_probe(tokenizer, 22), Answering(answer, tokenizer)
    assert tuple(float(MECHANISMS[name].value(model, probe)) for name in NAMES) == pytest.approx(values)


def test_pairs_of_prompts_differ_in_the_mark_alone():
    tokenizer = train_tokenizer(list(read_corpus(corpus(2000))), 320)
    asked = prompt_probe(tokenizer, 22).of("test", MECHANISMS["obedience_gap"].data)
    first, second = (half.tolist() for half in asked.tokens.chunk(2))
    mark = tokenizer.encode(f" {MARK}").ids[0]
    for one, other in zip(first, second, strict=True):
        assert [a for a, b in zip(one, other, strict=True) if a != b] == [mark]
        assert mark not in other
    letters = {tokenizer.encode(f" {letter}").ids[0] for letter in LETTERS}
    assert set(asked.correct.tolist()) | set(asked.wrong.tolist()) <= letters


def test_its_options_leave_the_fingerprints_of_other_languages_alone():
    generated = corpus().generated
    assert generated.options() == {"evaluated": 0.25, "obeying": None}
    assert fingerprint(generated) == fingerprint({"language": "feigned", "documents": 600, "seed": 0})
