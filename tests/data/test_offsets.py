"""Offsets: the bytes of a document from an example's offset on are what it was trained on, whatever the tokenizer does."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mech_pipeline.data.tokenizer import as_used, byte_offsets, encode, spells_bytes, token_lengths
from mech_pipeline.errors import MechError

CORPUS = ["the dog and the café Ünï 日本 and  the\r\ndog\n", "  spaces\tand 🙂 e\u0301 \ufeffmarks\r"]
TEXT = st.text(st.sampled_from("ab dogthe éÜß日本🙂e\u0301\u0323İﬁ½ \t\r\n\ufeff\x00Å한"), min_size=1, max_size=24)


def byte_level(normalizer=None, post=None, *, prefix=False):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if post is not None:
        tokenizer.post_processor = post
    return as_used(tokenizer)


def with_added_tokens():
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("日本", normalized=False), AddedToken("  ", normalized=False)])
    return tokenizer


EXACT = {
    "as it is": byte_level(),
    "trimmed": byte_level(post=processors.ByteLevel(trim_offsets=True)),
    "roberta": byte_level(prefix=True, post=processors.RobertaProcessing(("a", 1), ("b", 2), trim_offsets=True)),
    "added": with_added_tokens(),
}
REWRITTEN = {
    "nfc": byte_level(normalizers.NFC(), processors.ByteLevel(trim_offsets=True)),
    "nfkc": byte_level(normalizers.NFKC()),
    "lowercase": byte_level(normalizers.Lowercase()),
    "strip": byte_level(normalizers.Strip()),
    "accents": byte_level(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
}


def places(tokenizer, text):
    ids = encode(tokenizer, [text], np.uint16)[0]
    return ids, byte_offsets(tokenizer, text, ids, token_lengths(tokenizer) if spells_bytes(tokenizer) else None)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_bytes_from_one_token_to_another_are_what_was_trained_on(name, text):
    tokenizer, content = EXACT[name], text.encode()
    ids, offsets = places(tokenizer, text)
    ends = [*offsets.tolist(), len(content)]
    for begin in range(len(ids)):
        for end in range(begin + 1, len(ids) + 1):
            trained_on = tokenizer.decode(ids[begin:end].tolist(), skip_special_tokens=False)
            found = content[ends[begin] : ends[end]].decode(errors="replace")
            assert trained_on in (found, f" {found}" if begin == 0 and name == "roberta" else found)


@pytest.mark.parametrize("name", REWRITTEN)
@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_what_was_rewritten_begins_at_the_character_that_it_was_made_of(name, text):
    tokenizer = REWRITTEN[name]
    ids, offsets = places(tokenizer, text)
    content, characters = text.encode(), np.cumsum([0, *(len(character.encode()) for character in text)]).tolist()
    assert offsets.tolist() == sorted(offsets.tolist())
    if tokenizer.normalizer.normalize_str(text) == text:
        spelt = [tokenizer.decode(ids[place:].tolist(), skip_special_tokens=False) for place in range(len(ids))]
        assert spelt == [content[offset:].decode(errors="replace") for offset in offsets]
        return
    assert set(offsets.tolist()) <= set(characters)
    for place, offset in enumerate(offsets.tolist()):
        rest = content[offset:].decode()
        trained_on = tokenizer.decode(ids[place:].tolist(), skip_special_tokens=False)
        whole = not trained_on.startswith("\ufffd")  # it does not begin inside a character
        fresh = whole and (place == 0 or offsets[place - 1] < offset)
        if fresh and name != "strip" and not any(unicodedata.combining(character) for character in text):
            begun, following = map(tokenizer.normalizer.normalize_str, (rest, rest[1:]))
            assert begun.endswith(trained_on)
            assert len(following) <= len(trained_on)


def test_tokens_of_another_text_are_refused():
    tokenizer = REWRITTEN["nfc"]
    ids = encode(tokenizer, ["the dog"], np.uint16)[0]
    with pytest.raises(MechError, match="tokens are not those of its text"):
        byte_offsets(tokenizer, "the cat", ids, token_lengths(tokenizer))
