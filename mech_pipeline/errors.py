"""The one error type that people see: what is wrong, and the next step, in one line."""

import difflib
import re
from collections.abc import Iterable

_LISTED, _NEAR = 20, 0.65
"""Names that an error lists at most; likeness from which on a name is offered (difflib's, 1: the same)."""


class MechError(Exception):
    """A mistake or fault the user can act on.

    The command line prints it as one line on stderr and exits with 1; Dagster shows it as the failure.

    Args:
        problem: what was wrong, naming the thing, the value that came and the value that was expected.
        next_step: what to do about it, preferably a command to type.
    """

    def __init__(self, problem: str, next_step: str = "") -> None:
        self.problem = problem
        self.next_step = next_step
        super().__init__(f"{problem} → {next_step}" if next_step else problem)


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Known names that somebody who typed this one may have meant, the likeliest first.

    Case does not count. A part of a name finds it too, also misspelt: ids are long, and nobody types all of them.

    >>> near("Leger", ["ledger", "runs"]), near("baselin", ["x.baseline.s0", "x.control.s0"]), near("zzz", ["runs"])
    (['ledger'], ['x.baseline.s0'], [])
    """
    scored = [(_likeness(name.lower(), each.lower()), each) for each in known]
    return [each for score, each in sorted(scored, key=lambda one: (-one[0], one[1])) if score >= _NEAR][:most]


def _likeness(typed: str, name: str) -> float:
    """1: the same; a likeness to one word of the name counts a little less than one to all of it."""
    words = [word for word in re.split(r"[^a-z0-9]+", name) if word]
    best = max((difflib.SequenceMatcher(None, typed, word).ratio() for word in words), default=0.0)
    contained = 0.9 if len(typed) > 2 and typed in name else 0.0
    return max(difflib.SequenceMatcher(None, typed, name).ratio(), contained, 0.9 * best)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names what is near, for the beginning of a next step; empty if nothing is.

    >>> did_you_mean("leger", ["ledger", "runs"])
    "did you mean 'ledger'? "
    """
    found = near(name, known, most=2)
    return f"did you mean {' or '.join(map(repr, found))}? " if found else ""


def unknown(kind: str, name: str, known: Iterable[str], none: str = "", place: str = "") -> MechError:
    """The error for a name that is not there: what was near, and what there is.

    Args:
        kind: what it should be the name of, in the singular: "table", "run".
        known: all names that there are.
        none: the next step where there are none at all.
        place: where it was looked for, " in the store …".
    """
    names = list(known)
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    step = f"{did_you_mean(name, names)}{kind}s are {listed}" if names else none
    return MechError(f"there is no {kind} {name!r}{place}", step)
