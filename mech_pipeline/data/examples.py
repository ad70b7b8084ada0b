"""Examples: the training sequences, each with a stable id and its place in the corpus.

plain: `context` consecutive tokens of one document.
tiled: a snippet of p tokens (p uniform in `tile_tokens`) repeated to fill the context; the random period p keeps
"attend to i − p" from being a solution, so that only induction predicts the repetition.
packed: a window of whole documents one after another (`packing.py`).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.tokenised import TokenisedCorpus
from mech_pipeline.errors import MechError

_GOLDEN, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Places:
    """Where plain and tiled examples lie, row by row, before any token is read.

    Attributes:
        period: snippet length of tiled examples, 0 for plain ones.
        document: index into the corpus' documents.
        start: first token inside the document.
    """

    period: NDArray[np.int32]
    document: NDArray[np.int32]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.period)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> "Places":
        return Places(self.period[rows], self.document[rows], self.start[rows])

    def tokens(self, corpus: TokenisedCorpus, context: int, *, shuffled: bool = False) -> NDArray[np.int32]:
        """The examples themselves, [example, token].

        Args:
            shuffled: later copies of a snippet are each in an order of their own.
        """
        period = np.where(self.period, self.period, context)
        within = np.arange(context)[None, :] % period[:, None]
        if shuffled:
            within = shuffled_copies(period, self.start + (self.document.astype(np.int64) << 32), context)
        return corpus.tokens[(corpus.starts[self.document] + self.start)[:, None] + within].astype(np.int32)


def shuffled_copies(period: NDArray[np.integer], salt: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """Which token of its snippet stands where, [example, position]: the first copy as it is, each later one permuted.

    Orders follow from `salt` alone, one number per example, by sorting a hash of (salt, position); copies that the context
    cuts off are permuted before they are cut.

    >>> found = shuffled_copies(np.array([4]), np.array([7]), 12)[0].reshape(3, 4)
    >>> found[0].tolist(), [sorted(copy) for copy in found[1:].tolist()]
    ([0, 1, 2, 3], [[0, 1, 2, 3], [0, 1, 2, 3]])
    """
    position = np.arange(context + int(period.max(initial=1)))[None, :]
    copy, offset = position // period[:, None], position % period[:, None]
    mixed = (salt.astype(np.uint64)[:, None] * _GOLDEN) ^ (position.astype(np.uint64) * _MIX)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    order = np.lexsort((np.where(copy == 0, offset.astype(np.uint64), mixed), copy), axis=-1)
    return np.take_along_axis(offset, order, axis=1)[:, :context]


@dataclass(frozen=True)
class Examples:
    """Training or probe sequences with their origin, row by row.

    Attributes:
        tokens: token ids, [example, token].
        period: snippet length of tiled examples, 0 for plain ones.
        document: index into the corpus' documents; −1 for made-up sequences.
        start: first token inside the document.
    """

    tokens: NDArray[np.int32]
    period: NDArray[np.int32]
    document: NDArray[np.int32]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)


def example_ids(tokens: NDArray[np.int32], tokenizer_sha256: str) -> list[str]:
    """First 16 hex characters of SHA-256(tokenizer, token ids): equal sequences have equal ids in every run."""
    return id_names(example_numbers(tokens, tokenizer_sha256))


def example_numbers(tokens: NDArray[np.int32], tokenizer_sha256: str) -> NDArray[np.uint64]:
    """The ids as numbers, which take an eighth of the memory."""
    prefix = hashlib.sha256(tokenizer_sha256.encode())
    heads = []
    for row in np.ascontiguousarray(tokens, dtype="<i4"):
        digest = prefix.copy()
        digest.update(row.tobytes())
        heads.append(digest.digest()[:8])
    return np.frombuffer(b"".join(heads), dtype=">u8").astype(np.uint64)


def id_names(numbers: NDArray[np.uint64]) -> list[str]:
    """Ids as they stand in tables."""
    return [f"{number:016x}" for number in numbers.tolist()]


def split_documents(
    corpus: TokenisedCorpus,
    held_out: float,
    generator: np.random.Generator,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Which documents are kept for probes: a random set that holds at least `held_out` of all tokens.

    Args:
        among: the documents to choose from; default all. The answer is about these.
    """
    lengths = corpus.lengths() if among is None else corpus.lengths()[among]
    order = generator.permutation(len(lengths))
    tokens_before = np.cumsum(lengths[order]) - lengths[order]
    mask = np.zeros(len(order), dtype=bool)
    mask[order[tokens_before < held_out * lengths.sum()]] = True
    return mask


def plain_places(
    corpus: TokenisedCorpus, allowed: NDArray[np.bool_], count: int, context: int, generator: np.random.Generator
) -> Places:
    """`count` windows of consecutive text, uniform over all places where one fits."""
    document, start = _draw_places(corpus, allowed, np.full(count, context), generator)
    return Places(np.zeros(count, dtype=np.int32), document.astype(np.int32), start)


def tiled_places(
    corpus: TokenisedCorpus,
    allowed: NDArray[np.bool_],
    count: int,
    periods: tuple[int, int],
    generator: np.random.Generator,
) -> Places:
    """`count` snippets of random length, uniform over all places where one fits."""
    period = generator.integers(periods[0], periods[1] + 1, size=count)
    document, start = _draw_places(corpus, allowed, period, generator)
    return Places(period.astype(np.int32), document.astype(np.int32), start)


def draw_plain(
    corpus: TokenisedCorpus, allowed: NDArray[np.bool_], count: int, context: int, generator: np.random.Generator
) -> Examples:
    """`count` windows of consecutive text."""
    return _examples(corpus, plain_places(corpus, allowed, count, context, generator), context)


def draw_tiled(
    corpus: TokenisedCorpus,
    allowed: NDArray[np.bool_],
    count: int,
    context: int,
    periods: tuple[int, int],
    generator: np.random.Generator,
) -> Examples:
    """`count` snippets, each repeated to fill the context."""
    return _examples(corpus, tiled_places(corpus, allowed, count, periods, generator), context)


def _examples(corpus: TokenisedCorpus, places: Places, context: int) -> Examples:
    return Examples(places.tokens(corpus, context), places.period, places.document, places.start)


def draw_random_repeats(vocabulary: int, count: int, context: int, generator: np.random.Generator) -> Examples:
    """Random tokens without replacement, repeated once with a random period between 1/2 and 3/4 of the context.

    Every repeated token then has exactly one earlier occurrence, so a perfect induction head scores exactly 1.
    """
    low, high = context // 2, min(3 * context // 4, vocabulary)
    period = generator.integers(low, max(low, high) + 1, size=count)
    rows = []
    for p in period:
        segment = generator.permutation(vocabulary)[:p] if p <= vocabulary else generator.integers(0, vocabulary, p)
        rows.append(np.resize(segment, context))
    nowhere = np.full(count, -1, dtype=np.int32)
    return Examples(np.array(rows, dtype=np.int32), period.astype(np.int32), nowhere, nowhere.astype(np.int64))


def _draw_places(
    corpus: TokenisedCorpus, allowed: NDArray[np.bool_], lengths: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each length, a (document, start) uniform over all allowed places where that many tokens fit."""
    tokens = np.where(allowed, corpus.lengths(), 0)
    document = np.zeros(len(lengths), dtype=np.int64)
    start = np.zeros(len(lengths), dtype=np.int64)
    for length in np.unique(lengths):
        places = np.maximum(tokens - length + 1, 0)
        if places.sum() == 0:
            raise MechError(
                f"no document is long enough: the longest has {int(tokens.max())} tokens, an example needs {int(length)}",
                "lower data.context (or tile_tokens), or add longer documents",
            )
        rows = np.flatnonzero(lengths == length)
        ends = np.cumsum(places)
        draw = generator.integers(0, ends[-1], size=len(rows))
        document[rows] = np.searchsorted(ends, draw, side="right")
        start[rows] = draw - (ends - places)[document[rows]]
    return document, start
