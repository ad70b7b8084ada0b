"""Hugging Face datasets as documents: a text column of a hub dataset, or of a folder written with `save_to_disk`.

Cells are text or empty. Empty (null) cells are left out like blank documents; a column of anything else is refused, since
numbers, lists or bytes would be trained on as what Python prints for them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mech_pipeline.data.documents import Document
from mech_pipeline.errors import MechError, did_you_mean, unknown
from mech_pipeline.spec.data import Source

_ROWS = 1_000  # rows read at a time
_TEXT = {"string", "large_string", "string_view", "null"}


@dataclass(frozen=True)
class Rows:
    """A text column of a dataset, which memory-maps its files."""

    source: str
    table: Any
    column: str

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Document]:
        index = 0
        with _as_errors(self.source):
            for rows in self.table.select_columns([self.column]).iter(batch_size=_ROWS):
                for text in rows[self.column]:
                    yield self._document(index, text)
                    index += 1

    def read(self, index: int) -> Document:
        """One row."""
        with _as_errors(self.source):
            return self._document(index, self.table[index][self.column])

    def _document(self, index: int, text: str | None) -> Document:
        return Document(self.source, f"row {index}", text or "")


def dataset_rows(spec: Source, part: str, home: Path) -> Rows:
    """The text column that a corpus names.

    Raises:
        MechError: there is no such dataset, split or column, or the column does not hold text.
    """
    assert spec.dataset is not None, "the corpus model allows exactly one source"
    table = _loaded(spec, spec.dataset, home)
    if spec.column not in table.column_names:
        columns = ", ".join(table.column_names)
        raise MechError(
            f"dataset {spec.dataset!r} has no column {spec.column!r}",
            f"{did_you_mean(spec.column, table.column_names)}set `corpus.column` to one of {columns}",
        )
    kind = table.features[spec.column]
    if getattr(kind, "dtype", None) not in _TEXT:
        text = [name for name, feature in table.features.items() if getattr(feature, "dtype", None) in _TEXT]
        raise MechError(
            f"column {spec.column!r} of dataset {spec.dataset!r} holds {kind}, not text",
            f"set `corpus.column` to a column of text ({', '.join(text) or 'there is none'}), or convert it with `map`",
        )
    return Rows(part or spec.dataset, table.with_format(None), spec.column)


def _loaded(spec: Source, name: str, home: Path) -> Any:
    """The split that is asked for."""
    import datasets

    with _as_errors(name, f" split {spec.split!r}"):
        if not (home / name).is_dir():
            return datasets.load_dataset(name, split=spec.split)
        saved = datasets.load_from_disk(str(home / name))
        if isinstance(saved, datasets.DatasetDict):
            if spec.split not in saved:
                raise unknown("split", spec.split, saved, "save a dataset that has splits", f" in dataset {name!r}")
            return saved[spec.split]
        _check_only_split(spec.split, saved.split, name)
        return saved


def _check_only_split(asked: str, saved: Any, name: str) -> None:
    """A folder of one Dataset has no splits to choose from; it may remember the one that it was, or is a slice of."""
    if asked in (saved or "train", re.sub(r"\[[^+]*\]$", "", str(saved))):
        return
    if saved is None:
        raise MechError(
            f"dataset {name!r} has no splits, and `corpus.split` asks for {asked!r}",
            "leave out `corpus.split`, or save a DatasetDict",
        )
    raise MechError(
        f"there is no split {asked!r} in dataset {name!r}: it holds the split {str(saved)!r} alone",
        f"set `corpus.split` to {saved}, or save a DatasetDict",
    )


@contextmanager
def _as_errors(name: str, what: str = "") -> Iterator[None]:
    """What the library, Arrow and the network raise, in words."""
    try:
        yield
    except MechError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise MechError(
            f"dataset {name!r}{what} cannot be loaded: {said}",
            "check `corpus.dataset` and `corpus.split`, or the network",
        ) from error
