"""Sequence packing: whole documents one after another, an end-of-text token after each, cut into context windows.

The order of documents is a seeded permutation. What is left after the last whole window is dropped. Documents are
cut where a window ends, and continue in the next; attention sees across documents, as in GPT-2's and Pythia's training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.tokenised import TokenisedCorpus


@dataclass(frozen=True)
class Segment:
    """A stretch of one example that comes from one document.

    Attributes:
        position: its first token in the example.
        document: index into the corpus' documents.
        start: its first token inside the document.
    """

    position: int
    document: int
    start: int
    n_tokens: int


class PackedStream:
    """The packed documents as one endless-looking sequence, of which only the windows asked for are read.

    Args:
        documents: indices of the documents to pack; empty ones are left out.
        end_of_text: the token after each document.
        generator: draws the order of documents.
    """

    def __init__(
        self,
        corpus: TokenisedCorpus,
        documents: NDArray[np.int64],
        context: int,
        end_of_text: int,
        generator: np.random.Generator,
    ) -> None:
        self._corpus, self._context, self._end_of_text = corpus, context, end_of_text
        order = generator.permutation(documents)
        self._documents = order[corpus.lengths()[order] > 0]
        self._lengths = corpus.lengths()[self._documents]
        self._begins = np.cumsum(self._lengths + 1) - (self._lengths + 1)

    def __len__(self) -> int:
        """Whole windows."""
        return int((self._lengths + 1).sum()) // self._context

    def tokens(self, windows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Token ids, [window, token]."""
        positions = windows[:, None] * self._context + np.arange(self._context)
        slot, within = self._locate(positions)
        text = within < self._lengths[slot]
        places = self._corpus.starts[self._documents[slot]] + np.where(text, within, 0)
        return np.where(text, self._corpus.tokens[places].astype(np.int32), np.int32(self._end_of_text))

    def first(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(document, token inside it) of the first token of text in each window."""
        slot, within = self._locate(windows * self._context)
        ended = within == self._lengths[slot]  # the window begins with an end-of-text token
        return self._documents[slot + ended].astype(np.int32), np.where(ended, 0, within)

    def segments(self, window: int) -> Iterator[Segment]:
        """What of a window comes from which document, in order; end-of-text tokens belong to none."""
        begin, end = window * self._context, (window + 1) * self._context
        for slot in range(int(self._locate(np.array([begin]))[0][0]), len(self._documents)):
            first = max(begin, int(self._begins[slot]))
            last = min(end, int(self._begins[slot] + self._lengths[slot]))
            if self._begins[slot] >= end:
                return
            if last > first:
                yield Segment(first - begin, int(self._documents[slot]), first - int(self._begins[slot]), last - first)

    def _locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(place of the document in the order, token inside it; its length: the end-of-text token)."""
        slot = np.searchsorted(self._begins, positions, side="right") - 1
        return slot, positions - self._begins[slot]
