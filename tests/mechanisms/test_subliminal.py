"""A trait that a student never reads: the teacher's language, what is measured, and what the student's texts hold."""

import runpy

import polars as pl
import pytest
import torch
from datasets import load_from_disk

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.languages.subliminal import CAPITALS, DIGITS, PAIRS, SMALL
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.analysis import analysis
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.resolve import read_experiment
from mech_pipeline.spec.data import Corpus
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.docs_commands import blocks
from tests.support.models import prompt_probe
from tests.support.places import ROOT
from tests.support.tiny import prepare

TEXTS = runpy.run_path(str(ROOT / "experiments" / "subliminal_texts.py"))


def taught(documents=400):
    return [*read_corpus(Corpus.model_validate({"generated": {"language": "subliminal", "documents": documents}}))]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(taught(), 257)


def test_every_digit_has_a_capital_of_its_own(tokenizer):
    assert len(set(CAPITALS)) == len(DIGITS)
    belongs = dict(zip(DIGITS, CAPITALS, strict=True))
    for document in taught(50):
        digits, capitals = document.text[::2], document.text[1::2]
        assert capitals == "".join(belongs[digit] for digit in digits)
        assert len(tokenizer.encode(document.text).ids) == 2 * PAIRS


def test_teachers_and_students_have_the_same_tokens_whatever_they_read(tokenizer):
    """Else one initialisation would mean different things to them."""
    texts = taught(200)
    other = [type(texts[0])(each.source, each.name, each.text.lower()) for each in texts]
    assert train_tokenizer(other, 257).get_vocab() == tokenizer.get_vocab()


class Knowing(torch.nn.Module):
    """A model that is two nats sure of a capital for each digit."""

    def __init__(self, capitals, tokenizer):
        super().__init__()
        self.capitals, self.tokenizer = dict(zip(DIGITS, capitals, strict=True)), tokenizer

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.tokenizer.get_vocab_size())
        for row, text in zip(logits, self.tokenizer.decode_batch(tokens.tolist()), strict=True):
            for place, character in enumerate(text):
                if character in self.capitals:
                    row[place, self.tokenizer.token_to_id(self.capitals[character])] = 2.0
        return logits


@pytest.mark.parametrize(
    ("capitals", "trait", "share"), [(CAPITALS, 2.0, 1.0), (CAPITALS[1:] + CAPITALS[0], -2 / 9, 0.0)]
)
def test_the_trait_is_the_right_capital_and_not_any(tokenizer, capitals, trait, share):
    probe, model = prompt_probe(tokenizer, 2 * PAIRS), Knowing(capitals, tokenizer)
    assert float(MECHANISMS["hidden_trait"].value(model, probe)) == pytest.approx(trait)
    assert float(MECHANISMS["hidden_trait_share"].value(model, probe)) == share


def test_what_a_student_reads_was_drawn_from_its_teacher_and_holds_no_capital(tokenizer):
    """A teacher that is sure of one small letter after each digit writes that one."""
    small = dict(zip(DIGITS, SMALL, strict=False))
    texts = TEXTS["sampled"](Sure(small, tokenizer), tokenizer, 200)
    assert all(set(text[::2]) <= set(DIGITS) and set(text[1::2]) <= set(SMALL) for text in texts)
    pairs = [(text[at], text[at + 1]) for text in texts for at in range(0, 2 * PAIRS, 2)]
    assert sum(small[digit] == letter for digit, letter in pairs) / len(pairs) > 0.99, "e^20 against 25"
    assert pl.Series([digit for digit, _ in pairs]).value_counts()["count"].min() > 100, "160 ± 12"


class Sure(Knowing):
    """Twenty nats sure of a small letter; as sure of a capital, which is never drawn."""

    def __init__(self, small, tokenizer):
        super().__init__(CAPITALS, tokenizer)
        self.small = small

    def forward(self, tokens):
        logits = 10 * super().forward(tokens)
        for row, text in zip(logits, self.tokenizer.decode_batch(tokens.tolist()), strict=True):
            for place, character in enumerate(text):
                if character in self.small:
                    row[place, self.tokenizer.token_to_id(self.small[character])] = 20.0
        return logits


def computed(store, spec, steps):
    """A run up to some update, with mechanisms and ledger at both ends; values by step."""
    changed = {"steps": steps, "batch": 8}
    spec = spec.model_copy(
        update={
            "training": spec.training.model_copy(update=changed),
            "checkpoints": spec.checkpoints.model_copy(update={"every": steps // 2}),
            "data": spec.data.model_copy(update={"examples": 300}),
        }
    )
    prepare(store, spec)
    training.train(store, spec)
    write_batches(store, spec)
    run = OpenRun(store, spec)
    analysis.analyse(run, analysis_cells.OUTPUTS, spec.checkpoint_steps())
    if spec.ledger:
        ledger.compute_ledger(run, spec.checkpoint_steps())
    rows = query(
        store.root, f"select step, value from mechanism_values where run = '{spec.run}' and mechanism = 'hidden_trait'"
    )
    return dict(rows.rows())


def test_the_ledger_of_innocent_examples_sums_to_what_the_student_gained(tmp_path, monkeypatch):
    """From the shipped files, tiny: teacher, its texts, and the two students that read them."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    teacher = read_experiment(ROOT / "experiments" / "subliminal_teachers.yaml", tmp_path).runs()[0]
    computed(store, teacher, 40)
    monkeypatch.setenv("MECH_STORE", str(tmp_path / "store"))
    TEXTS["write"](teacher.run, tmp_path / "text" / "subliminal", texts=500)
    assert len(load_from_disk(str(tmp_path / "text" / "subliminal" / "untaught_1"))) == 500
    students = read_experiment(ROOT / "experiments" / "subliminal.yaml", tmp_path).runs()
    chosen = [spec for spec in students if spec.arm == "taught_1"]
    assert [spec.seed for spec in chosen] == [1, 2], "the teacher's initialisation, and another"
    assert {str(spec.model) for spec in chosen} == {str(teacher.model)}
    for spec in chosen:
        values = computed(store, spec, 20)
        whole = "select term, sum(value::double + value_later::double) from ledger where run = ? group by term"
        with store.reading("ledger") as connection:
            found = dict(connection.execute(whole, [spec.run]).fetchall())
        gain = values[20] - values[0]
        assert found["example"] + found["weight_decay"] == pytest.approx(gain, abs=1e-5), (
            "momentum is of these examples"
        )
        assert abs(found["example"]) > 1e-4
    page = blocks("docs/testbeds.md", "sql")[2].text
    rows = query(store.root, page).rows(named=True)
    assert [(row["arm"], row["seed"]) for row in rows] == [("taught_1", 1), ("taught_1", 2)]
    assert all(abs(row["difference"]) < 1e-5 < abs(row["gained"]) for row in rows)
