"""The tables `examples` and `example_documents`: where every example comes from, written a stretch at a time."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mech_pipeline.data.drawing import Chunk, DrawnPool
from mech_pipeline.data.examples import id_names
from mech_pipeline.data.text_files import line_numbers
from mech_pipeline.data.token_file import GIVEN, FileRows
from mech_pipeline.data.tokenised import TokenisedCorpus
from mech_pipeline.data.tokenizer import byte_offsets, spells_bytes
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.store.store import Store

_ROWS = 32_768  # examples whose text is in memory at a time


def write_examples(store: Store, corpus: TokenisedCorpus, tokenizer: Tokenizer, pool: DrawnPool, emit: Emit) -> None:
    """Adds the examples that the tables do not have yet."""
    lengths = corpus.token_bytes if spells_bytes(tokenizer) else None
    progress = Progress(emit, "describe examples", len(pool), "examples")
    done = 0
    for chunk in pool.chunks(_ROWS):
        found = _Origins(corpus, tokenizer, lengths)
        given = isinstance(chunk.group.rows, FileRows)
        store.insert_new("examples", (_given_columns if given else _example_columns)(chunk, found, tokenizer))
        if chunk.group.kind == "packed":
            store.insert_new("example_documents", _document_columns(chunk, found))
        done += chunk.end - chunk.begin
        progress(done)


@dataclass
class _Origins:
    """Byte offsets and line numbers of places in documents; each document is read once."""

    corpus: TokenisedCorpus
    tokenizer: Tokenizer
    lengths: NDArray[np.int64] | None
    names: dict[int, tuple[str, str]] = field(default_factory=dict)

    def locate(self, document: NDArray, start: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(byte offset, line from 1) of each (document, token inside it)."""
        offsets, lines = np.zeros(len(document), dtype=np.int64), np.zeros(len(document), dtype=np.int64)
        order = np.argsort(document, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(document[order])) + 1):
            index = int(document[rows[0]])
            read = self.corpus.documents[index]
            self.names[index] = read.source, read.name
            places = byte_offsets(self.tokenizer, read.text, self.corpus.tokens_of(index), self.lengths)
            offsets[rows] = places[start[rows]]
            lines[rows] = line_numbers(read.text, offsets[rows])
        return offsets, lines


def _example_columns(chunk: Chunk, origins: _Origins, tokenizer: Tokenizer) -> dict[str, Any]:
    places = chunk.places
    offsets, lines = origins.locate(places.document, places.start)
    names = [origins.names[index] for index in places.document.tolist()]
    rows, periods = chunk.tokens().tolist(), places.period.tolist()
    snippets = tokenizer.decode_batch(
        [row[:period] for row, period in zip(rows, periods, strict=True)], skip_special_tokens=False
    )
    return {
        "example_id": id_names(chunk.ids),
        "kind": [chunk.group.kind] * len(rows),
        "source": [source for source, _ in names],
        "document": [name for _, name in names],
        "offset": offsets,
        "line": lines,
        "period": places.period,
        "n_tokens": [len(row) for row in rows],
        "text": tokenizer.decode_batch(rows, skip_special_tokens=False),
        "repeat_at": [len(s) if period else 0 for s, period in zip(snippets, periods, strict=True)],
    }


def _given_columns(chunk: Chunk, origins: _Origins, tokenizer: Tokenizer) -> dict[str, Any]:
    """Rows of a token file: each sequence once, where it stands first."""
    file = chunk.group.rows
    assert isinstance(file, FileRows), "asked for only of such"
    _, once = np.unique(chunk.ids, return_index=True)
    rows, place = chunk.tokens()[once], chunk.places.start[once]
    count = len(once)
    return {
        "example_id": id_names(chunk.ids[once]),
        "kind": [chunk.group.kind] * count,
        "source": [GIVEN] * count,
        "document": [file.path.name] * count,
        "offset": place * rows.shape[1] * file.rows.dtype.itemsize,
        "line": place + 1,
        "period": np.zeros(count, dtype=np.int32),
        "n_tokens": [rows.shape[1]] * count,
        "text": tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False),
        "repeat_at": [0] * count,
    }


def _document_columns(chunk: Chunk, origins: _Origins) -> dict[str, Any]:
    found = [
        (name, segment)
        for name, row in zip(id_names(chunk.ids), range(chunk.begin, chunk.end), strict=True)
        for segment in chunk.group.rows.segments(row)
    ]
    documents = np.array([segment.document for _, segment in found])
    offsets, _ = origins.locate(documents, np.array([segment.start for _, segment in found]))
    return {
        "example_id": [name for name, _ in found],
        "position": [segment.position for _, segment in found],
        "document": [origins.names[index][1] for index in documents.tolist()],
        "source": [origins.names[index][0] for index in documents.tolist()],
        "offset": offsets,
        "n_tokens": [segment.n_tokens for _, segment in found],
    }
