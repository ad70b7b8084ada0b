"""Drawing the pool: distinct examples of each group, decided by their places; tokens are read in chunks.

A group is a kind of example, or a kind of one corpus part (`code/plain`). Memory: 24 bytes an example and one chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.documents import document_parts
from mech_pipeline.data.examples import Places, example_numbers, plain_places, tiled_places
from mech_pipeline.data.packing import PackedStream, Segment
from mech_pipeline.data.tokenised import TokenisedCorpus
from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import Data
from mech_pipeline.spec.seeds import numpy_generator

_ROUNDS = 20
_CHUNK = 1 << 16  # examples whose tokens are in memory at a time
_ORDER = ("tiled", "plain", "packed")


@runtime_checkable
class Rows(Protocol):
    """Examples of one group, whose tokens are read when they are asked for."""

    @property
    def places(self) -> Places:
        """Where they lie."""

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Token ids of some of them."""

    def segments(self, row: int) -> list[Segment]:
        """The documents in one of them; empty for kinds that never have more than one."""


@dataclass(frozen=True)
class PlacedRows:
    """Plain or tiled examples."""

    places: Places
    corpus: TokenisedCorpus
    context: int
    shuffled: bool = False

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        return self.places[rows].tokens(self.corpus, self.context, shuffled=self.shuffled)

    def segments(self, row: int) -> list[Segment]:
        return []


@dataclass(frozen=True)
class PackedRows:
    """Packed examples: windows of a stream."""

    places: Places
    stream: PackedStream
    windows: NDArray[np.int64]

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        return self.stream.tokens(self.windows[rows])

    def segments(self, row: int) -> list[Segment]:
        return list(self.stream.segments(int(self.windows[row])))


@dataclass(frozen=True)
class Group:
    """The examples of one group, with their ids."""

    name: str
    rows: Rows
    ids: NDArray[np.uint64]

    @property
    def kind(self) -> str:
        """plain, tiled or packed."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Chunk:
    """Some examples of the pool, one after the other, all of one group."""

    group: Group
    begin: int
    end: int

    @property
    def places(self) -> Places:
        """Where they lie."""
        return self.group.rows.places[self.begin : self.end]

    @property
    def ids(self) -> NDArray[np.uint64]:
        """Their ids."""
        return self.group.ids[self.begin : self.end]

    def tokens(self) -> NDArray[np.int32]:
        """Their token ids."""
        return self.group.rows.tokens(np.arange(self.begin, self.end))


@dataclass(frozen=True)
class DrawnPool:
    """All groups; the pool is their examples one after the other."""

    groups: Sequence[Group]

    def __len__(self) -> int:
        return sum(len(group.ids) for group in self.groups)

    def chunks(self, rows: int = _CHUNK) -> Iterator[Chunk]:
        """Stretches of at most `rows` examples, in the order of the pool."""
        for group in self.groups:
            for begin in range(0, len(group.ids), rows):
                yield Chunk(group, begin, min(begin + rows, len(group.ids)))


def draw_pool(
    corpus: TokenisedCorpus,
    allowed: NDArray[np.bool_],
    data: Data,
    parts: Sequence[str],
    tokenizer_sha256: str,
    end_of_text: int | None = None,
) -> DrawnPool:
    """A pool of distinct examples with the shares that are asked for.

    Args:
        allowed: documents that may be trained on.
        parts: names of the corpus' parts; empty if it has none.
        end_of_text: token between packed documents.

    Raises:
        MechError: the corpus does not hold that many distinct examples.
    """
    drawer = _Drawer(corpus, data, tokenizer_sha256, end_of_text)
    counts = kind_counts(data)
    pool = numpy_generator(data.seed, "pool")
    for kind in _ORDER:
        if not parts:
            # Tiled and plain examples are drawn from one stream, packed ones from a stream of their own.
            stream = numpy_generator(data.seed, "pool:packed") if kind == "packed" else pool
            drawer.draw(kind, kind, "the corpus", allowed, counts[kind], stream)
            continue
        codes = document_parts(corpus.documents, parts)
        for number, (part, count) in enumerate(_split(corpus, allowed, codes, data, parts, counts[kind])):
            name = f"{part}/{kind}"
            stream = numpy_generator(data.seed, f"pool:{name}")
            drawer.draw(name, kind, f"part {part} of the corpus", allowed & (codes == number), count, stream)
    return DrawnPool(drawer.groups)


def kind_counts(data: Data) -> dict[str, int]:
    """Examples of each kind."""
    if data.packed == 0:
        tiled = round(data.examples * data.tiled)
        return {"tiled": tiled, "plain": data.examples - tiled, "packed": 0}
    shares = data.shares()
    return dict(zip(shares, apportion(data.examples, list(shares.values())), strict=True))


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to shares, by largest remainder; they sum to the total.

    >>> apportion(10, [1.0, 1.0, 2.0])
    [3, 2, 5]
    """
    exact = np.array(shares, dtype=np.float64) / sum(shares) * total
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return [int(count) for count in counts]


def _split(
    corpus: TokenisedCorpus,
    allowed: NDArray[np.bool_],
    codes: NDArray[np.int64],
    data: Data,
    parts: Sequence[str],
    count: int,
) -> list[tuple[str, int]]:
    """How many of a kind come from each part: by `part_shares`, else by the tokens that may be trained on."""
    tokens = np.bincount(codes, weights=np.where(allowed, corpus.lengths(), 0), minlength=len(parts))
    shares = [data.part_shares[part] for part in parts] if data.part_shares else tokens.tolist()
    return list(zip(parts, apportion(count, shares), strict=True))


class _Drawer:
    """Draws group after group and remembers which examples there are already."""

    def __init__(self, corpus: TokenisedCorpus, data: Data, tokenizer_sha256: str, end_of_text: int | None) -> None:
        self._corpus, self._data, self._tokenizer, self._end = corpus, data, tokenizer_sha256, end_of_text
        self._seen = np.empty(0, dtype=np.uint64)
        self.groups: list[Group] = []

    def draw(
        self,
        name: str,
        kind: str,
        where: str,
        allowed: NDArray[np.bool_],
        count: int,
        generator: np.random.Generator,
    ) -> None:
        """Adds a group of `count` examples."""
        if count == 0:
            return
        draw = self._pack if kind == "packed" else self._place
        rows, ids = draw(kind, allowed, count, generator)
        if len(ids) < count:
            raise MechError(
                f"{where} holds only about {len(ids)} distinct {kind} examples of {self._data.context} tokens, "
                f"but {count} are asked for",
                "lower data.examples or data.context, or add text",
            )
        self.groups.append(Group(name, rows, ids))

    def _place(
        self, kind: str, allowed: NDArray[np.bool_], count: int, generator: np.random.Generator
    ) -> tuple[Rows, NDArray[np.uint64]]:
        """Draws until there are enough new ones, a limited number of times."""
        corpus, data = self._corpus, self._data
        shuffled = data.copies == "shuffled"
        found: list[Places] = []
        ids: list[NDArray[np.uint64]] = []
        for _ in range(_ROUNDS):
            missing = count - sum(len(part) for part in ids)
            if missing == 0:
                break
            if kind == "tiled":
                places = tiled_places(corpus, allowed, missing, data.tile_tokens, generator)
            else:
                places = plain_places(corpus, allowed, missing, data.context, generator)
            numbers, fresh = self._fresh(PlacedRows(places, corpus, data.context, shuffled), len(places))
            found.append(places[fresh])
            ids.append(numbers[fresh])
        joined = Places(*(np.concatenate([getattr(p, f) for p in found]) for f in ("period", "document", "start")))
        return PlacedRows(joined, corpus, data.context, shuffled), np.concatenate(ids)

    def _pack(
        self, kind: str, allowed: NDArray[np.bool_], count: int, generator: np.random.Generator
    ) -> tuple[Rows, NDArray[np.uint64]]:
        """The first windows of the packed documents that are new."""
        assert self._end is not None, "packing needs an end-of-text token; the spec fills it in"
        stream = PackedStream(self._corpus, np.flatnonzero(allowed), self._data.context, self._end, generator)
        windows, ids = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        begin = 0
        while len(ids) < count and begin < len(stream):
            ahead = np.arange(begin, min(begin + count - len(ids), len(stream)))
            begin = int(ahead[-1]) + 1
            numbers, fresh = self._fresh(_packed(stream, ahead), len(ahead))
            windows, ids = np.concatenate([windows, ahead[fresh]]), np.concatenate([ids, numbers[fresh]])
        return _packed(stream, windows), ids

    def _fresh(self, rows: Rows, count: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Ids of examples, and which of them are new."""
        chunks = [np.arange(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
        numbers = np.concatenate([example_numbers(rows.tokens(chunk), self._tokenizer) for chunk in chunks])
        first = np.zeros(count, dtype=bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        fresh = np.flatnonzero(first & ~np.isin(numbers, self._seen))
        self._seen = np.concatenate([self._seen, numbers[fresh]])
        return numbers, fresh


def _packed(stream: PackedStream, windows: NDArray[np.int64]) -> PackedRows:
    document, start = stream.first(windows)
    return PackedRows(Places(np.zeros(len(windows), dtype=np.int32), document, start), stream, windows)
