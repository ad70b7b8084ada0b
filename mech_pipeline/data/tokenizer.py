"""Byte-level BPE, trained on the corpus itself, and a tokenised corpus that knows where every token came from.

Byte-level means every character of a token stands for one byte, so byte offsets follow from token lengths alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mech_pipeline.data.corpora import Document


def train_tokenizer(documents: list[Document], vocabulary: int) -> Tokenizer:
    """Trains a byte-level BPE with at most `vocabulary` tokens, the 256 bytes included."""
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
    return tokenizer


@dataclass(frozen=True)
class TokenisedCorpus:
    """All documents as one token array.

    Attributes:
        tokens: token ids of all documents, one after the other.
        starts: first token of each document; one more entry holds the total.
        token_bytes: length in bytes of each vocabulary entry.
    """

    documents: list[Document]
    tokens: NDArray[np.uint16]
    starts: NDArray[np.int64]
    token_bytes: NDArray[np.int64]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens per document."""
        return np.diff(self.starts)

    def byte_offset(self, document: int, start: int) -> int:
        """Where token `start` (counted inside the document) begins, in bytes."""
        begin = self.starts[document]
        return int(self.token_bytes[self.tokens[begin : begin + start]].sum())


def tokenise(tokenizer: Tokenizer, documents: list[Document]) -> TokenisedCorpus:
    """Encodes every document; nothing is added between documents, since examples never cross them."""
    encoded = [np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch([d.text for d in documents])]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]).astype(np.int64)
    return TokenisedCorpus(documents, np.concatenate(encoded), starts, token_lengths(tokenizer))


def token_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Length in bytes of each vocabulary entry."""
    size = tokenizer.get_vocab_size()
    return np.array([len(tokenizer.id_to_token(index) or "") for index in range(size)], dtype=np.int64)
