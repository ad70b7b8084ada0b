"""Tokenizers: trained and pretrained, where tokens come from, and what is refused."""

import json

import numpy as np
import pytest
from tokenizers import normalizers

from mech_pipeline.data.documents import Document
from mech_pipeline.data.tokenised import encode_documents, pieces, tokenise
from mech_pipeline.data.tokenizer import byte_offsets, is_byte_level, token_lengths, train_tokenizer, vocabulary_size
from mech_pipeline.errors import MechError
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from tests.support.tiny import MINIMAL
from tests.support.tokenizers import words

TEXTS = ["def naïve(x):\n    return 'ümläut' + x  # 日本\n", "Zweite Datei, <|endoftext|> im Text\n" * 3]
DOCUMENTS = [Document("made", f"d{i}", text) for i, text in enumerate(TEXTS * 4)]


def saved(tokenizer, path):
    tokenizer.save(str(path))
    return str(path)


def run_of(tokenizer, **data):
    return resolve(parse_experiment(MINIMAL | {"tokenizer": tokenizer, "data": data})).runs()[0]


def test_an_added_end_of_text_leaves_all_other_ids_as_they_are():
    plain, ended = train_tokenizer(DOCUMENTS, 300), train_tokenizer(DOCUMENTS, 300, "<|endoftext|>")
    assert vocabulary_size(ended) == vocabulary_size(plain) + 1
    for one, two in zip(tokenise(plain, DOCUMENTS).tokens, tokenise(ended, DOCUMENTS).tokens, strict=True):
        assert one == two, "the text <|endoftext|> inside a document is text, not the separator"


def test_every_token_begins_where_its_byte_offset_says():
    tokenizer = train_tokenizer(DOCUMENTS, 300)
    corpus = tokenise(tokenizer, DOCUMENTS)
    assert is_byte_level(tokenizer)
    text = DOCUMENTS[0].text.encode()
    offsets = byte_offsets(tokenizer, DOCUMENTS[0].text, corpus.tokens_of(0), corpus.token_bytes)
    ends = [*offsets[1:], len(text)]
    assert b"".join(text[a:b] for a, b in zip(offsets, ends, strict=True)) == text
    assert [corpus.byte_offset(0, k) for k in range(len(offsets))] == offsets.tolist()


def test_offsets_of_other_tokenizers_are_their_own():
    """Lower-casing and dropped accents change lengths: the offsets the tokenizer reports are turned into bytes."""
    tokenizer = words()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    text = "Wört W1 日本 w2\nW65999"
    assert not is_byte_level(tokenizer)
    ids = np.array(tokenizer.encode(text).ids, dtype=np.uint32)
    offsets = byte_offsets(tokenizer, text, ids, None)
    found = [text.encode()[begin:].split()[0].decode() for begin in offsets]
    assert found == ["Wört", "W1", "日本", "w2", "W65999"]
    assert ids.tolist() == [0, 1, 0, 2, 65999]


def test_streamed_encoding_equals_encoding_at_once(monkeypatch):
    monkeypatch.setattr("mech_pipeline.data.tokenised._BATCH_CHARACTERS", 50)
    tokenizer, done = train_tokenizer(DOCUMENTS, 300), []
    streamed = list(encode_documents(tokenizer, DOCUMENTS, done.append))
    assert [ids.tolist() for ids in streamed] == [tokenizer.encode(d.text).ids for d in DOCUMENTS]
    assert done == sorted(done)
    assert done[-1] == sum(len(d.text.encode()) for d in DOCUMENTS)
    whole = np.concatenate(streamed)
    for length in (1, 7, len(whole) - 1, len(whole), len(whole) + 1):
        cut = list(pieces(iter(streamed), length))
        assert (np.concatenate(cut) == whole).all()
        assert {len(piece) for piece in cut[:-1]} <= {length}


def test_more_than_65536_entries_take_32_bits():
    ids = next(encode_documents(words(), [Document("made", "d", "w65535 w69999")]))
    assert ids.dtype == np.uint32
    assert ids.tolist() == [65535, 69999]
    assert len(token_lengths(words())) == 70_000


def test_a_pretrained_tokenizer_enters_fingerprints_by_content(tmp_path):
    path = tmp_path / "t.json"
    first = run_of({"file": saved(words(), path)})
    again = run_of({"file": saved(words(), path)})
    assert first.tokenizer.sha256 == again.tokenizer.sha256
    changed = run_of({"file": saved(words(70_001), path)})
    assert changed.tokenizer.sha256 != first.tokenizer.sha256
    assert changed.tokens_slice() != first.tokens_slice()


def test_truncation_in_a_tokenizer_file_does_not_cut_documents(tmp_path):
    from mech_pipeline.data.pretrained import load_pretrained

    cutting = words()
    cutting.enable_truncation(2)
    cutting.enable_padding(length=5)
    loaded = load_pretrained(run_of({"file": saved(cutting, tmp_path / "t.json")}).tokenizer)
    assert loaded.encode("w1 w2 w3").ids == [1, 2, 3]


def test_the_end_of_text_token_is_the_tokenizers_own_or_named(tmp_path):
    tokenizer = words()
    path = tmp_path / "t.json"
    assert run_of({"file": saved(tokenizer, path)}).tokenizer.end_of_text is None
    with pytest.raises(MechError, match="has no end-of-text token that is known → set tokenizer.end_of_text to one"):
        run_of({"file": str(path)}, packed=1, plain=0, tiled=0)
    with pytest.raises(MechError, match=r"has no end-of-text token '<end>'"):
        run_of({"file": str(path), "end_of_text": "<end>"})
    tokenizer.add_special_tokens(["</s>"])
    assert run_of({"file": saved(tokenizer, path)}, packed=1, plain=0, tiled=0).tokenizer.end_of_text == "</s>"
    assert run_of({}, packed=1, plain=0, tiled=0).tokenizer.end_of_text == "<|endoftext|>"
    assert run_of({}).tokenizer.end_of_text is None


def test_tokenizers_that_cannot_be_used_are_named(tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(MechError, match=r"tokenizer file .*none\.json does not exist"):
        run_of({"file": str(tmp_path / "none.json")})
    path.write_text('{"version": "1.0"')
    with pytest.raises(MechError, match=r"tokenizer file .*t\.json is broken: .* → write it with"):
        run_of({"file": str(path)})
    with pytest.raises(MechError, match=r"has 70,000 entries, tokenizer.max_vocabulary allows 50,000"):
        run_of({"file": saved(words(), path), "max_vocabulary": 50_000})
    described = json.loads(train_tokenizer(DOCUMENTS, 300).to_str())
    described["model"]["dropout"] = 0.1
    path.write_text(json.dumps(described))
    with pytest.raises(MechError, match="encodes at random \\(BPE dropout 0.1\\)"):
        run_of({"file": str(path)})
    for tokenizer, message in (
        ({"file": "a", "name": "b"}, "by `file` \\(a\\) or by `name` \\(b\\), not by both"),
        ({"file": "a", "vocabulary": 300}, "`vocabulary` is for a tokenizer that is trained here"),
        ({"max_vocabulary": 300}, "`max_vocabulary` and `sha256` belong to a tokenizer named"),
        ({"end_of_text": ""}, "end_of_text is empty"),
    ):
        with pytest.raises(MechError, match=message):
            run_of(tokenizer)


def test_a_hub_name_without_network_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MechError, match="tokenizer 'no-such/tokenizer' cannot be had from the hub: .* or save its"):
        run_of({"name": "no-such/tokenizer"})
