"""What all kinds of faults share: what one fault came to, and what a kind is.

A kind is one module `faults_<name>.py` with a function `trials`, and one entry of the table in `faults.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random

from store_measure import Say

from mech_pipeline.errors import MechError


class Outcome(StrEnum):
    """What came of a fault, best first.

    survived: results are those without the fault, at once or after the work was started again. named: an error in words
    that a person can act on. silent: other results and no word. traceback: an error for programmers, an abort, or a
    process that does not end. lost: results that had been acknowledged are gone and are not made again.
    """

    SURVIVED = "survived"
    NAMED = "named"
    SILENT = "silent"
    TRACEBACK = "traceback"
    LOST = "lost"


ALLOWED = (Outcome.SURVIVED, Outcome.NAMED)


@dataclass(frozen=True)
class Trial:
    """One fault and what came of it.

    Attributes:
        fault: what was done, in a word or two: a row of the table, for example "data file, bit".
        detail: file, seed and message: enough to do it again.
    """

    fault: str
    outcome: Outcome
    detail: str = ""


Trials = Callable[[Path, int, Random, Say], Iterator[Trial]]
"""(empty folder to work in, how many, chance, says progress) → trials."""


@dataclass(frozen=True)
class Kind:
    """A kind of faults.

    Attributes:
        says: one sentence.
        count: trials by default.
    """

    says: str
    count: int
    trials: Trials


def outcome_of_error(error: BaseException) -> Outcome:
    """An error of ours is made for people; any other is a traceback."""
    return Outcome.NAMED if isinstance(error, MechError) else Outcome.TRACEBACK


def counted(trials: Iterable[Trial]) -> dict[str, Counter[Outcome]]:
    """How often each fault came to each outcome."""
    counts: dict[str, Counter[Outcome]] = {}
    for trial in trials:
        counts.setdefault(trial.fault, Counter())[trial.outcome] += 1
    return dict(sorted(counts.items()))
