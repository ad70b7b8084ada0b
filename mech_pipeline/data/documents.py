"""Documents that are read when they are asked for, so that a corpus need not fit in memory."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.errors import MechError


@dataclass(frozen=True)
class Document:
    """One document: which corpus it is from, its path or index there, and its text."""

    source: str
    name: str
    text: str


@runtime_checkable
class Reader(Protocol):
    """Documents of one source, in a fixed order, blank ones included."""

    @property
    def source(self) -> str: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Document]: ...

    def read(self, index: int) -> Document:
        """One document."""


class Documents(Sequence[Document]):
    """The documents of one or more sources that hold text, one after the other.

    Making it reads everything once, so that faults are found before work begins. What is read later must be the same.

    Attributes:
        sha256: of names and contents, in order.
        n_bytes: of all texts in UTF-8.
        n_blank: documents without text, which are left out.
    """

    def __init__(
        self, readers: Sequence[Reader], check: Callable[[int, int], None] = lambda reader, kept: None
    ) -> None:
        """
        Args:
            check: called with the number of each reader and how many documents with text it has.
        """
        self._readers = readers
        self._kept: list[NDArray[np.int64]] = []
        self._marks: list[NDArray[np.uint64]] = []
        self.n_bytes = self.n_blank = 0
        digest = hashlib.sha256()
        for number, reader in enumerate(readers):
            kept, marks = [], []
            for index, document in enumerate(reader):
                if document.text.strip():
                    kept.append(index)
                    marks.append(_mark(document))
                    self.n_bytes += _update(digest, document)
                else:
                    self.n_blank += 1
            check(number, len(kept))
            self._kept.append(np.array(kept, dtype=np.int64))
            self._marks.append(np.array(marks, dtype=np.uint64))
        self._ends = np.cumsum([len(kept) for kept in self._kept])
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[Document]:
        for reader, kept, marks in zip(self._readers, self._kept, self._marks, strict=True):
            wanted = iter(zip(kept.tolist(), marks.tolist(), strict=True))
            following, mark = next(wanted, (-1, 0))
            for index, document in enumerate(reader):
                if index == following:
                    yield _same(document, mark)
                    following, mark = next(wanted, (-1, 0))

    @overload
    def __getitem__(self, index: int) -> Document: ...

    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...

    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        number = int(np.searchsorted(self._ends, place, side="right"))
        before = int(self._ends[number - 1]) if number else 0
        document = self._readers[number].read(int(self._kept[number][place - before]))
        return _same(document, int(self._marks[number][place - before]))

    def parts(self, names: Sequence[str]) -> NDArray[np.int64]:
        """For each document the place of its source in `names`."""
        codes = [names.index(reader.source) for reader in self._readers]
        return np.repeat(np.array(codes, dtype=np.int64), [len(kept) for kept in self._kept])


def corpus_sha256(documents: Sequence[Document]) -> str:
    """SHA-256 of names and contents, in order."""
    if isinstance(documents, Documents):
        return documents.sha256
    digest = hashlib.sha256()
    for document in documents:
        _update(digest, document)
    return digest.hexdigest()


def corpus_bytes(documents: Sequence[Document]) -> int:
    """Size of all texts in UTF-8."""
    if isinstance(documents, Documents):
        return documents.n_bytes
    return sum(len(document.text.encode()) for document in documents)


def blank_documents(documents: Sequence[Document]) -> int:
    """How many were left out because they hold no text."""
    return documents.n_blank if isinstance(documents, Documents) else 0


def document_parts(documents: Sequence[Document], parts: Sequence[str]) -> NDArray[np.int64]:
    """For each document the place of its source in `parts`."""
    if isinstance(documents, Documents):
        return documents.parts(parts)
    return np.array([parts.index(document.source) for document in documents], dtype=np.int64)


def _update(digest: "hashlib._Hash", document: Document) -> int:
    text = document.text.encode()
    digest.update(f"{document.source}\0{document.name}\0{len(text)}\0".encode())
    digest.update(text)
    return len(text)


def _mark(document: Document) -> int:
    """A number that another text has not."""
    return int.from_bytes(hashlib.blake2b(document.text.encode(), digest_size=8).digest())


def _same(document: Document, mark: int) -> Document:
    if _mark(document) != mark:
        raise MechError(
            f"document {document.name} of {document.source} has changed since the corpus was read", "run it again"
        )
    return document
