"""A tokenised corpus that knows where every token came from; encoded in batches, so that texts need not fit in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mech_pipeline.data.documents import Document
from mech_pipeline.data.sharded import TokenArray
from mech_pipeline.data.tokenizer import encode, token_dtype, token_lengths, vocabulary_size
from mech_pipeline.progress import Report, ignore_progress

_BATCH_CHARACTERS = 1_000_000  # encoded at a time; an encoding takes some hundred bytes a character


@dataclass(frozen=True)
class TokenisedCorpus:
    """All documents as one token array.

    Attributes:
        tokens: token ids of all documents, one after the other.
        starts: first token of each document; one more entry holds the total.
        token_bytes: length in bytes of each vocabulary entry, for byte-level tokenizers.
    """

    documents: Sequence[Document]
    tokens: TokenArray
    starts: NDArray[np.int64]
    token_bytes: NDArray[np.int64]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens per document."""
        return np.diff(self.starts)

    def tokens_of(self, document: int) -> NDArray[np.unsignedinteger]:
        """Token ids of one document."""
        return self.tokens[np.arange(self.starts[document], self.starts[document + 1])]

    def byte_offset(self, document: int, start: int) -> int:
        """Where token `start` (counted inside the document) begins, in bytes; for byte-level tokenizers."""
        return int(self.token_bytes[self.tokens_of(document)[:start]].sum())


def tokenise(tokenizer: Tokenizer, documents: Sequence[Document]) -> TokenisedCorpus:
    """Encodes every document in memory; nothing is added between documents."""
    encoded = list(encode_documents(tokenizer, documents))
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]).astype(np.int64)
    return TokenisedCorpus(documents, np.concatenate(encoded), starts, token_lengths(tokenizer))


def encode_documents(
    tokenizer: Tokenizer, documents: Sequence[Document], report: Report = ignore_progress
) -> Iterator[NDArray[np.unsignedinteger]]:
    """Token ids of each document, in order.

    Args:
        report: called with the number of bytes done.
    """
    dtype, done = token_dtype(vocabulary_size(tokenizer)), 0
    for texts in _batches(documents):
        yield from encode(tokenizer, texts, dtype)
        done += sum(len(text.encode()) for text in texts)
        report(done)


def _batches(documents: Sequence[Document]) -> Iterator[list[str]]:
    texts: list[str] = []
    size = 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def pieces(arrays: Iterator[NDArray], length: int) -> Iterator[NDArray]:
    """The concatenation of arrays, cut into pieces of `length` (the last may be shorter).

    >>> [piece.tolist() for piece in pieces(iter([np.array([1, 2, 3]), np.array([4])]), 2)]
    [[1, 2], [3, 4]]
    """
    waiting: list[NDArray] = []
    count = 0
    for array in arrays:
        waiting.append(array)
        count += len(array)
        if count >= length:
            joined = np.concatenate(waiting)
            for begin in range(0, count - count % length, length):
                yield joined[begin : begin + length]
            waiting, count = [joined[count - count % length :]], count % length
    if count:
        yield np.concatenate(waiting)
