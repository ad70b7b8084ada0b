"""Data: examples, their ids and order."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.data.corpora import Document, corpus_sha256, read_corpus
from mech_pipeline.data.drawing import draw_pool
from mech_pipeline.data.examples import (
    draw_plain,
    draw_random_repeats,
    draw_tiled,
    example_ids,
    split_documents,
)
from mech_pipeline.data.order import examples_at_step
from mech_pipeline.data.tokenised import tokenise
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import Corpus, Data
from mech_pipeline.spec.seeds import numpy_generator

DOCUMENTS = [
    Document("made", f"d{i}", "".join(f"def f{j}(x):\n    return x + {i * j} # ümläut {j}\n" for j in range(20 + i)))
    for i in range(6)
]


@pytest.fixture(scope="module")
def corpus():
    return tokenise(train_tokenizer(DOCUMENTS, 300), DOCUMENTS)


@given(seed=st.integers(0, 2**31), pool=st.integers(1, 40), batch=st.integers(1, 50))
@settings(deadline=None, max_examples=50)
def test_each_epoch_sees_every_example_once(seed, pool, batch):
    steps = -(-2 * pool // batch)
    seen = np.concatenate([examples_at_step(seed, step, pool_size=pool, batch=batch) for step in range(steps)])
    assert sorted(seen[:pool]) == list(range(pool))
    assert sorted(seen[pool : 2 * pool]) == list(range(pool))


def test_order_depends_on_the_seed_and_on_nothing_else():
    first = examples_at_step(1, 5, pool_size=1000, batch=8)
    examples_at_step(2, 7, pool_size=1000, batch=8)
    assert (first == examples_at_step(1, 5, pool_size=1000, batch=8)).all()
    assert (first != examples_at_step(2, 5, pool_size=1000, batch=8)).any()


def test_shuffled_copies_hold_the_tokens_of_the_snippet_in_orders_of_their_own(corpus):
    allowed = np.ones(len(DOCUMENTS), dtype=bool)
    data = Data(context=32, examples=80, plain=0.25, tiled=0.75, tile_tokens=(6, 10), copies="shuffled")
    moved = 0
    for group in draw_pool(corpus, allowed, data, [], "t").groups:
        places, rows = group.rows.places, group.rows.tokens(np.arange(len(group.ids)))
        for row, before, period in zip(rows, places.tokens(corpus, 32), places.period, strict=True):
            first = period or 32
            assert (row[:first] == before[:first]).all(), "plain text and first copies are as they were"
            for begin in range(first, 32 - first + 1, first):
                copy = row[begin : begin + period]
                assert sorted(copy) == sorted(row[:period])
                moved += (copy != row[:period]).any()
    assert moved > 100


def test_byte_offsets_point_at_the_text_of_the_example(corpus):
    tokenizer = train_tokenizer(DOCUMENTS, 300)
    allowed = np.ones(len(DOCUMENTS), dtype=bool)
    drawn = draw_plain(corpus, allowed, 50, 16, numpy_generator(0, "x"))
    for row, document, start in zip(drawn.tokens, drawn.document, drawn.start, strict=True):
        offset = corpus.byte_offset(int(document), int(start))
        content = DOCUMENTS[document].text.encode()[offset:]
        text = b"".join(bytes_of(tokenizer, int(token)) for token in row)
        assert content.startswith(text)


def bytes_of(tokenizer, token):
    from tokenizers import decoders

    piece = tokenizer.id_to_token(token)
    decoded = decoders.ByteLevel().decode([piece])
    return decoded.encode() if "�" not in decoded else b"".join(bytes([BYTE_OF[character]]) for character in piece)


def _byte_table():
    """GPT-2's byte-to-unicode table, inverted."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {chr(b): b for b in printable}, 0
    for byte in range(256):
        if byte not in printable:
            table[chr(256 + extra)] = byte
            extra += 1
    return table


BYTE_OF = _byte_table()


def test_tiled_examples_repeat_with_their_period(corpus):
    drawn = draw_tiled(corpus, np.ones(len(DOCUMENTS), dtype=bool), 40, 32, (5, 11), numpy_generator(0, "x"))
    assert set(drawn.period) <= set(range(5, 12))
    assert len(set(drawn.period)) > 3
    for row, period in zip(drawn.tokens, drawn.period, strict=True):
        assert (row[period:] == row[:-period]).all()


def test_random_probes_have_exactly_one_earlier_copy():
    drawn = draw_random_repeats(100, 30, 32, numpy_generator(0, "x"))
    for row, period in zip(drawn.tokens, drawn.period, strict=True):
        assert len(set(row[:period])) == period
        assert (row[period:] == row[: 32 - period]).all()


def test_probe_documents_are_never_trained_on(corpus):
    held_out = split_documents(corpus, 0.3, numpy_generator(0, "h"))
    assert held_out.any()
    assert not held_out.all()
    data = Data(context=16, examples=60, plain=0.5, tiled=0.5, tile_tokens=(4, 8))
    pool = draw_pool(corpus, ~held_out, data, [], "t")
    assert not any(held_out[chunk.places.document].any() for chunk in pool.chunks(7))
    ids = np.concatenate([chunk.ids for chunk in pool.chunks(7)])
    assert len(set(ids.tolist())) == len(ids) == 60
    assert sum((chunk.places.period > 0).sum() for chunk in pool.chunks(7)) == 30
    assert example_ids(next(pool.chunks(7)).tokens(), "t") == [f"{number:016x}" for number in ids[:7].tolist()]


def test_example_ids_are_hashes_of_content():
    rows = np.arange(12, dtype=np.int32).reshape(2, 6)
    expected = hashlib.sha256(b"tok" + rows[0].astype("<i4").tobytes()).hexdigest()[:16]
    assert example_ids(rows, "tok") == [expected, example_ids(rows[1:], "tok")[0]]
    assert example_ids(rows, "other")[0] != expected


def test_a_context_longer_than_every_document_is_named(corpus):
    with pytest.raises(
        MechError, match=r"no document is long enough: the longest has \d+ tokens, an example needs 100000"
    ):
        draw_plain(corpus, np.ones(len(DOCUMENTS), dtype=bool), 1, 100_000, numpy_generator(0, "x"))


def test_asking_for_more_examples_than_there_are_is_named(corpus):
    allowed = np.zeros(len(DOCUMENTS), dtype=bool)
    allowed[0] = True
    with pytest.raises(MechError, match=r"distinct plain examples .* but 100000 are asked for"):
        draw_pool(corpus, allowed, Data(context=16, examples=100_000, plain=1, tiled=0, tile_tokens=(4, 8)), [], "t")


def test_files_are_read_in_order_with_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("a.txt", "b/c.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    found = read_corpus(Corpus(files="**/*.txt"))
    assert [(d.name, d.text) for d in found] == [("a.txt", "text of a.txt"), ("b/c.txt", "text of b/c.txt")]
    before = corpus_sha256(found)
    (tmp_path / "a.txt").write_text("other")
    assert corpus_sha256(read_corpus(Corpus(files="**/*.txt"))) != before


def test_an_empty_corpus_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MechError, match="the corpus is empty: no file matches"):
        read_corpus(Corpus(files="*.none"))
    (tmp_path / "blank.txt").write_text("  \n")
    with pytest.raises(MechError, match="the corpus is empty"):
        read_corpus(Corpus(files="*.txt"))


def test_binary_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MechError, match=r"x\.txt is not UTF-8"):
        read_corpus(Corpus(files="*.txt"))


def test_a_saved_hugging_face_dataset_is_read_by_column_and_split(tmp_path):
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"body": ["one", "two"]})}).save_to_disk(
        str(tmp_path / "d")
    )
    found = read_corpus(Corpus(dataset=str(tmp_path / "d"), column="body"))
    assert [(d.name, d.text) for d in found] == [("row 0", "one"), ("row 1", "two")]
    with pytest.raises(MechError, match="set `corpus.column` to one of body"):
        read_corpus(Corpus(dataset=str(tmp_path / "d")))
    with pytest.raises(MechError, match="there is no split 'none' in dataset .* → splits are train"):
        read_corpus(Corpus(dataset=str(tmp_path / "d"), split="none", column="body"))


def test_the_standard_library_is_a_corpus_without_tests_and_machine_paths():
    found = read_corpus(Corpus(python_stdlib=True))
    names = {d.name for d in found}
    assert {"json/decoder.py", "argparse.py"} <= names
    assert not any("site-packages" in name or name.startswith(("test/", "_sysconfigdata")) for name in names)
