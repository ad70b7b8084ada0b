"""The documents a report shows: where they come from, and their text with the repetition marked."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from mech_pipeline.reports.wording import UNKNOWN, number

SHOWN_DOCUMENTS, SHOWN_CHARACTERS = 10, 400


@dataclass(frozen=True)
class Excerpt:
    """One training example as it is shown. `plain` is read first; `repeated` is the highlighted continuation."""

    place: int
    where: str
    kind: str
    total: str
    times_seen: int
    plain: str
    repeated: str


def excerpts(documents: pl.DataFrame) -> list[Excerpt]:
    """The rows of `influence.queries.responsible_documents` that contribute positively, in their order."""
    rows = documents.filter(pl.col("total") > 0).iter_rows(named=True)
    return [_excerpt(place, row) for place, row in enumerate(rows, start=1)]


def _excerpt(place: int, row: dict[str, Any]) -> Excerpt:
    kind = row["kind"] or "unknown kind"
    plain, repeated = split_repetition(row["text"] or "", row["repeat_at"] or 0)
    where = UNKNOWN if row["document"] is None else f"{row['source']}: {row['document']}, line {row['line']}"
    return Excerpt(place, where, kind, number(row["total"]), row["times_seen"], plain, repeated)


def split_repetition(text: str, repeat_at: int, limit: int = SHOWN_CHARACTERS) -> tuple[str, str]:
    """(text before the repetition, the repetition), together at most `limit` characters and an ellipsis.

    >>> split_repetition("abcabc", 3), split_repetition("abcabc", 0), split_repetition("abcabc", 3, limit=4)
    (('abc', 'abc'), ('abcabc', ''), ('abc', 'a…'))
    """
    shown = text if len(text) <= limit else text[:limit] + "…"
    return (shown[:repeat_at], shown[repeat_at:]) if repeat_at > 0 else (shown, "")
