"""Examples: the training sequences, each with a stable id and its place in the corpus.

plain: `context` consecutive tokens of one document.
tiled: a snippet of p tokens (p uniform in `tile_tokens`) repeated to fill the context; the random period p keeps
"attend to i − p" from being a solution, so that only induction predicts the repetition.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.tokenizer import TokenisedCorpus
from mech_pipeline.errors import MechError

_ROUNDS = 20


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
    prefix = hashlib.sha256(tokenizer_sha256.encode())
    ids = []
    for row in np.ascontiguousarray(tokens, dtype="<i4"):
        digest = prefix.copy()
        digest.update(row.tobytes())
        ids.append(digest.hexdigest()[:16])
    return ids


def split_documents(corpus: TokenisedCorpus, held_out: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Which documents are kept for probes: a random set that holds at least `held_out` of all tokens."""
    order = generator.permutation(len(corpus.documents))
    tokens_before = np.cumsum(corpus.lengths()[order]) - corpus.lengths()[order]
    mask = np.zeros(len(order), dtype=bool)
    mask[order[tokens_before < held_out * corpus.lengths().sum()]] = True
    return mask


def draw_plain(
    corpus: TokenisedCorpus, allowed: NDArray[np.bool_], count: int, context: int, generator: np.random.Generator
) -> Examples:
    """`count` windows of consecutive text, uniform over all places where one fits."""
    document, start = _draw_places(corpus, allowed, np.full(count, context), generator)
    tokens = corpus.tokens[(corpus.starts[document] + start)[:, None] + np.arange(context)].astype(np.int32)
    return Examples(tokens, np.zeros(count, dtype=np.int32), document.astype(np.int32), start)


def draw_tiled(
    corpus: TokenisedCorpus,
    allowed: NDArray[np.bool_],
    count: int,
    context: int,
    periods: tuple[int, int],
    generator: np.random.Generator,
) -> Examples:
    """`count` snippets, each repeated to fill the context."""
    period = generator.integers(periods[0], periods[1] + 1, size=count)
    document, start = _draw_places(corpus, allowed, period, generator)
    place = np.arange(context)[None, :] % period[:, None]
    tokens = corpus.tokens[(corpus.starts[document] + start)[:, None] + place].astype(np.int32)
    return Examples(tokens, period.astype(np.int32), document.astype(np.int32), start)


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


def draw_pool(
    corpus: TokenisedCorpus,
    allowed: NDArray[np.bool_],
    count: int,
    context: int,
    tiled: float,
    periods: tuple[int, int],
    tokenizer_sha256: str,
    generator: np.random.Generator,
) -> tuple[Examples, list[str]]:
    """A pool of distinct examples with the given share of tiled ones, and their ids.

    Raises:
        MechError: the corpus does not hold that many distinct examples.
    """
    wanted = {"tiled": round(count * tiled)}
    wanted["plain"] = count - wanted["tiled"]
    parts: list[Examples] = []
    ids: list[str] = []
    seen: set[str] = set()
    for kind, number in wanted.items():
        kept = 0
        for _ in range(_ROUNDS if number else 0):
            draw = (
                draw_tiled(corpus, allowed, number - kept, context, periods, generator)
                if kind == "tiled"
                else draw_plain(corpus, allowed, number - kept, context, generator)
            )
            fresh = []
            for row, name in enumerate(example_ids(draw.tokens, tokenizer_sha256)):
                if name not in seen:
                    seen.add(name)
                    ids.append(name)
                    fresh.append(row)
            parts.append(_rows(draw, np.array(fresh, dtype=np.int64)))
            kept += len(fresh)
            if kept == number:
                break
        if kept < number:
            raise MechError(
                f"the corpus holds only about {kept} distinct {kind} examples of {context} tokens, but {number} are asked for",
                "lower data.examples or data.context, or add text",
            )
    return Examples(
        *(np.concatenate([getattr(p, f) for p in parts]) for f in ("tokens", "period", "document", "start"))
    ), ids


def _rows(examples: Examples, index: NDArray[np.int64]) -> Examples:
    return Examples(examples.tokens[index], examples.period[index], examples.document[index], examples.start[index])


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
