"""Sequences of the probe as rows: complete, and with the ids that training examples of the same tokens have."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.pipeline.tokens.probe_rows import write_probe_sequences
from mech_pipeline.pipeline.tokens.tokens import load_tokens
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.store.reading.query import query
from tests.support import tiny
from tests.support.places import ROOT


@pytest.fixture
def spec(tmp_path, monkeypatch):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tiny.spec_of()


def answer(store, question: str):
    """The query that stands under a question in docs/sql.md."""
    page = (Path(ROOT) / "docs" / "sql.md").read_text()
    found = re.search(re.escape(question) + r".*?```sql\n(.*?)```", page, re.DOTALL)
    assert found is not None, question
    return query(store.root, found[1]).rows()


def test_every_sequence_is_a_row_and_is_read_back(spec, local_store):
    tiny.prepare(local_store, spec)
    probe = load_tokens(local_store, spec).probe
    for _ in range(2):  # again in place of what was there
        write_probe_sequences(local_store, spec, probe)
    rows = query(
        local_store.root,
        "select token_ids, text, repeat_at from probe_sequences where mechanism = 'induction_copy_advantage' order by sequence",
    ).rows()
    assert [list(map(int, ids.split())) for ids, _, _ in rows] == probe.tiled.tokens.tolist()
    assert all(text[at:].startswith(text[: min(at, len(text) - at)]) and at > 0 for _, text, at in rows)


def test_sql_finds_the_examples_that_are_in_the_probe(spec, local_store):
    tiny.train(local_store, spec)
    write_batches(local_store, spec)
    tokens = load_tokens(local_store, spec)
    question = "Is a training example in the probe?"
    assert answer(local_store, question) == [(spec.run, 0, 0, 0)], "nothing is known before the rows are written"

    taught = tokens.pool[np.array([3, 5])].long()
    planted = Sequences(taught, torch.full((2,), taught.shape[1] // 2))
    write_probe_sequences(local_store, spec, Probe(planted, tokens.probe.random, tokens.probe.origin))
    sql = "select count(distinct example_id) from batches where example_id in (select unnest(?))"
    asked = query(local_store.root, sql.replace("?", str(tokens.example_ids[[3, 5]].tolist()))).item()
    assert asked == 2, "the tiny run sees its whole pool"
    ((_, sequences, inside, with_a_snippet),) = answer(local_store, question)
    assert (sequences, inside) == (2 + len(tokens.probe.random.tokens), 2)
    assert with_a_snippet >= 2
