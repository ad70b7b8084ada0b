"""Packing: whole documents, separated, cut into windows; every token knows its document."""

import numpy as np
import pytest

from mech_pipeline.data.documents import Document
from mech_pipeline.data.drawing import apportion, draw_pool
from mech_pipeline.data.packing import PackedStream
from mech_pipeline.data.tokenised import tokenise
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import Data
from mech_pipeline.spec.seeds import numpy_generator

DOCUMENTS = [
    Document(
        "code" if i % 2 else "prose", f"d{i}", f"document {i} says {' and '.join(str(i * j) for j in range(3 + i))}.\n"
    )
    for i in range(12)
]
CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, 300, "<|endoftext|>")


@pytest.fixture(scope="module")
def corpus(tokenizer):
    return tokenise(tokenizer, DOCUMENTS)


def stream(corpus, tokenizer, documents=range(12), seed=0):
    end = tokenizer.token_to_id("<|endoftext|>")
    return PackedStream(corpus, np.array(documents), CONTEXT, end, numpy_generator(seed, "x"))


def test_windows_are_the_permuted_documents_one_after_another(corpus, tokenizer):
    packed = stream(corpus, tokenizer)
    order = numpy_generator(0, "x").permutation(np.arange(12)).tolist()
    end = tokenizer.token_to_id("<|endoftext|>")
    slow = [token for index in order for token in [*corpus.tokens_of(index).tolist(), end]]
    assert len(packed) == len(slow) // CONTEXT
    assert packed.tokens(np.arange(len(packed))).reshape(-1).tolist() == slow[: len(packed) * CONTEXT]
    assert packed.tokens(np.array([3, 1]))[1].tolist() == slow[CONTEXT : 2 * CONTEXT]
    assert (stream(corpus, tokenizer, seed=1).tokens(np.arange(2)) != packed.tokens(np.arange(2))).any()


def test_segments_tell_every_token_of_text_where_it_comes_from(corpus, tokenizer):
    end = tokenizer.token_to_id("<|endoftext|>")
    several = separated = 0
    for seed in range(20):
        packed = stream(corpus, tokenizer, seed=seed)
        windows = np.arange(len(packed))
        documents, starts = packed.first(windows)
        for window, row in enumerate(packed.tokens(windows)):
            rebuilt = np.full(CONTEXT, end)
            segments = list(packed.segments(window))
            for part in segments:
                text = corpus.tokens_of(part.document)[part.start : part.start + part.n_tokens]
                rebuilt[part.position : part.position + part.n_tokens] = text
            assert (rebuilt == row).all()
            assert (segments[0].document, segments[0].start) == (documents[window], starts[window])
            several += len(segments) > 1
            separated += row[0] == end
    assert several > 0
    assert separated > 0, "windows that begin with the separator are covered"


def data(examples, **shares):
    return Data(context=CONTEXT, examples=examples, tile_tokens=(4, 8), **shares)


def test_packed_examples_are_distinct_and_their_number_is_limited_by_the_text(corpus, tokenizer):
    everything = np.ones(12, dtype=bool)
    only = {"plain": 0.0, "tiled": 0.0, "packed": 1.0}
    windows = len(stream(corpus, tokenizer))
    pool = draw_pool(corpus, everything, data(windows, **only), [], "t", 300)
    assert len(pool) == windows == len(set(pool.groups[0].ids.tolist()))
    with pytest.raises(MechError, match=f"holds only about {windows} distinct packed examples of 16 tokens, but"):
        draw_pool(corpus, everything, data(windows + 1, **only), [], "t", 300)


def test_repeated_documents_give_no_repeated_examples(tokenizer):
    twice = [DOCUMENTS[11]] * 2
    corpus = tokenise(tokenizer, twice)
    length = len(corpus.tokens_of(0)) + 1
    context = length // 2 if length % 2 == 0 else length
    settings = Data(
        context=context, examples=2 * (2 * length // context), packed=1, plain=0, tiled=0, tile_tokens=(2, 4)
    )
    with pytest.raises(MechError, match=f"only about {length // context} distinct packed"):
        draw_pool(corpus, np.ones(2, dtype=bool), settings, [], "t", 300)


def test_kinds_and_parts_get_their_shares(corpus):
    mixed = data(40, plain=0.25, tiled=0.5, packed=0.25)
    everything = np.ones(12, dtype=bool)
    by_tokens = {g.name: len(g.ids) for g in draw_pool(corpus, everything, mixed, ["code", "prose"], "t", 300).groups}
    code = sum(len(corpus.tokens_of(i)) for i in range(1, 12, 2)) / len(corpus.tokens)
    assert by_tokens["code/tiled"] == round(20 * code)
    assert sum(by_tokens.values()) == 40
    given = mixed.model_copy(update={"part_shares": {"code": 0.7, "prose": 0.3}})
    pool = draw_pool(corpus, everything, given, ["code", "prose"], "t", 300)
    assert {g.name: len(g.ids) for g in pool.groups} == {
        "code/tiled": 14, "prose/tiled": 6, "code/plain": 7, "prose/plain": 3, "code/packed": 7, "prose/packed": 3,
    }  # fmt: skip
    for group in pool.groups:
        assert {DOCUMENTS[index].source for index in group.rows.places.document} == {group.name.split("/")[0]}
    ids = np.concatenate([group.ids for group in pool.groups])
    assert len(set(ids.tolist())) == 40


def test_shares_that_do_not_divide_go_to_the_largest_remainders():
    assert apportion(3, [0.5, 0.5]) == [2, 1]
    assert apportion(7, [0.0, 1.0, 1.0, 1.0]) == [0, 3, 2, 2]
