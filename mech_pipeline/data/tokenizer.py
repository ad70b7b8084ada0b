"""Byte-level BPE, trained on the corpus itself, and what has to be known of any tokenizer.

In a byte-level tokenizer every character of a token stands for one byte, so byte offsets follow from token lengths.
Where tokens do not spell the text (other kinds, a text that normalisation changes), the offsets that the tokenizer reports
are used: they are right to the character.
"""

import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mech_pipeline.data.documents import Document
from mech_pipeline.errors import MechError
from mech_pipeline.spec.fingerprint import fingerprint

SMALL_VOCABULARY = 1 << 16
"""Up to this size a token fits into 16 bits."""


def train_tokenizer(documents: Iterable[Document], vocabulary: int, end_of_text: str | None = None) -> Tokenizer:
    """Trains a byte-level BPE with at most `vocabulary` tokens, the 256 bytes included.

    Args:
        end_of_text: added as one token more, so that all other ids are those of a tokenizer without it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    if end_of_text is not None:
        tokenizer.add_special_tokens([end_of_text])
    return as_used(tokenizer)


def as_used(tokenizer: Tokenizer) -> Tokenizer:
    """Sets what a file may leave otherwise: whole documents, and special tokens only where we put them."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" inside a document is text
    tokenizer.post_processor = None  # adds special tokens, and trims the spaces of tokens off their offsets
    return tokenizer


def open_tokenizer(text: str) -> Tokenizer:
    """A tokenizer from its own JSON."""
    return as_used(Tokenizer.from_str(text))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Largest token id + 1: what a model's embedding needs, also where ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def token_dtype(vocabulary: int) -> type[np.unsignedinteger]:
    """The smallest type that holds every token id."""
    return np.uint16 if vocabulary <= SMALL_VOCABULARY else np.uint32


def tokenizer_identity(tokenizer: Tokenizer) -> str:
    """SHA-256 of the vocabulary: the tokenizer's own JSON changes its layout with its library's version."""
    return fingerprint("tokenizer", sorted(tokenizer.get_vocab().items()))


def token_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Length in bytes of each vocabulary entry of a byte-level tokenizer; tokens added to it are plain text."""
    lengths = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = len(token)
    for index, added in tokenizer.get_added_tokens_decoder().items():
        lengths[index] = len(added.content.encode())
    return lengths


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether token characters stand for bytes and nothing rewrites the text before."""
    described = json.loads(tokenizer.to_str())
    first = described["pre_tokenizer"] or {}
    steps = first.get("pretokenizers", [first])
    return described["normalizer"] is None and any(
        step.get("type") == "ByteLevel" and not step["add_prefix_space"] for step in steps
    )


def spells_bytes(tokenizer: Tokenizer) -> bool:
    """Whether token characters stand for bytes, of a text that may have been rewritten before."""
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    return [step.get("type") for step in decoder.get("decoders", [decoder])] == ["ByteLevel"]


def byte_offsets(
    tokenizer: Tokenizer, text: str, tokens: NDArray[np.unsignedinteger], lengths: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Where each token of a document begins, in bytes of its UTF-8 text.

    Args:
        lengths: `token_lengths` of a tokenizer that `spells_bytes`; none for others.

    Raises:
        MechError: the text has other tokens.
    """
    if lengths is not None:
        spelt, size = tokenizer.decode(tokens.tolist(), skip_special_tokens=False), len(text.encode())
        ends, added = np.cumsum(lengths[tokens]), len(spelt) - len(text)  # a space may be put before the text
        if spelt == " " * added + text and ends.size and ends[-1] == added + size:
            return np.maximum(ends - lengths[tokens] - added, 0)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if encoding.ids != tokens.tolist():
        raise MechError("a document's tokens are not those of its text", "`mech run` the experiment again")
    begins = np.array([begin for begin, _ in encoding.offsets], dtype=np.int64)
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return (np.cumsum(sizes) - sizes)[np.minimum(begins, len(points) - 1)]


def encode(tokenizer: Tokenizer, texts: Sequence[str], dtype: type[np.unsignedinteger]) -> list[NDArray]:
    """Token ids of each text; nothing is added."""
    return [np.array(e.ids, dtype=dtype) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
