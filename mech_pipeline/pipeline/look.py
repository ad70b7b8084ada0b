"""One look at the store: while it lasts, each question about runs is asked once, of all its runs together.

A plan asks the same few tables for every run and every stage. A table is as long in opening as in answering, so the
first run that asks brings the answers of the others along.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from mech_pipeline.store.store import Store

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Look:
    """Whose answers are read together, and those that were read: by store and question, then by run."""

    runs: tuple[str, ...]
    answers: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


_current: ContextVar[_Look | None] = ContextVar("_current", default=None)


@contextmanager
def one_look(runs: Iterable[str] = ()) -> Iterator[None]:
    """While the block runs, no question is asked twice; what anyone writes meanwhile is not seen.

    Inside of another look, it is that one.

    Args:
        runs: that will be asked about; experiments too, in tables of experiments.
    """
    if _current.get() is not None:
        yield
        return
    token = _current.set(_Look(tuple(runs)))
    try:
        yield
    finally:
        _current.reset(token)


def answer_of(store: Store, question: str, run: str, read: Callable[[Sequence[str]], dict[str, Answer]]) -> Answer:
    """The answer to a question about a run: read now, or remembered if this look has it.

    Args:
        question: names it, among all that are asked.
        read: gives the answers of these runs, one each.
    """
    look = _current.get()
    if look is None:
        return read([run])[run]
    known = look.answers.setdefault((store.root, question), {})
    if run not in known:
        known |= read([run, *(other for other in look.runs if other not in known and other != run)])
    return cast(Answer, known[run])


def among(column: str, values: Sequence[str]) -> str:
    """SQL that is true of rows with one of these values, which the query is given in their order.

    A list of constants, because DuckDB then opens only the files of these partitions.

    >>> among("run", ["a", "b"])
    'run in (?, ?)'
    """
    return f"{column} in ({', '.join('?' * len(values))})"
