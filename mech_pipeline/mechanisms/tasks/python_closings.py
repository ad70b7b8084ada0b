"""Which closing brackets of held-out Python source can be asked for, and at which tokens.

Python's tokenizer finds the brackets (data/python_brackets.py), byte offsets find their tokens. Subword tokens merge
brackets with their neighbours, so of all pairs these count:

  * the closing bracket is a token of its own (`)` and not `):`, `))`, `')`): the kinds then differ in one token each;
  * the opener's token holds one bracket (`(`, ` (`, `("`, and not `((`): what is looked at is then that bracket;
  * at least two tokens lie between them, and opener and query fit into the context.

The query is the last token before the closing bracket. Documents that are not Python source are passed over.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from mech_pipeline.data.python_brackets import CLOSERS, OPENERS, bracket_pairs
from mech_pipeline.data.tokenizer import byte_offsets, is_byte_level, token_lengths
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.source import ProbeSource

BETWEEN = 2
"""Fewest tokens between an opener and its closing bracket."""


@dataclass(frozen=True)
class Place:
    """A closing bracket that can be asked for, in token positions of its document.

    Attributes:
        tokens: ids of the document.
        kind: place in OPENERS and CLOSERS.
        opener, query: the token of the opener; the last one before the closing bracket.
        closed: tokens of the openers of the same depth that are closed before the query, as far as the context reaches.
    """

    tokens: Int[Tensor, " token"]
    kind: int
    opener: int
    query: int
    closed: tuple[int, ...]


def places(source: ProbeSource) -> list[Place]:
    """All of them, in the order of the held-out documents.

    Raises:
        MechError: the tokens of this vocabulary are not bytes of the text, so brackets cannot be found in them.
    """
    if not is_byte_level(source.tokenizer):
        raise MechError(
            "its brackets are found by byte offsets, and this tokenizer is not byte-level", "train one on the corpus"
        )
    return [place for tokens in source.held_out_documents() for place in _places_of(source, tokens)]


def _places_of(source: ProbeSource, tokens: Int[Tensor, " token"]) -> Iterator[Place]:
    ids = tokens.numpy().astype(np.uint32)
    text = source.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    try:
        pairs = bracket_pairs(text)
    except ValueError:
        return
    offsets = byte_offsets(source.tokenizer, text, ids, token_lengths(source.tokenizer))
    spelled = [source.tokenizer.id_to_token(int(token)) for token in ids]
    opener = _token_at(offsets, [pair.opener for pair in pairs])
    closer = _token_at(offsets, [pair.closer for pair in pairs])
    alone = [sum(character in OPENERS + CLOSERS for character in spelled[token]) == 1 for token in opener]
    by_depth: dict[int, list[int]] = defaultdict(list)  # clear openers, in order
    for number, pair in enumerate(pairs):
        query = int(closer[number]) - 1
        shut = by_depth[pair.depth]  # what has the same depth and opened earlier is closed
        if (
            alone[number]
            and spelled[query + 1] == CLOSERS[pair.kind]
            and BETWEEN <= query - opener[number] < source.context
        ):
            seen = shut[bisect_left(shut, query - source.context + 1) :]
            yield Place(tokens, pair.kind, int(opener[number]), query, tuple(seen))
        if alone[number]:
            shut.append(int(opener[number]))


def _token_at(offsets: NDArray[np.int64], byte: list[int]) -> NDArray[np.int64]:
    """The tokens that hold bytes of the text."""
    return np.searchsorted(offsets, np.array(byte, dtype=np.int64), side="right") - 1
