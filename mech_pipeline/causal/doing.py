"""What is done with chosen examples: weights of their losses in windows of updates, or another order in one window.

The batch loss is Σ_i w_i ℓ_i / B (`data/example_weights.py`): 0 leaves an example out and the others as they are, 2 shows
it twice.
"""

from typing import Literal

import numpy as np

from mech_pipeline.causal.choosing import Examples
from mech_pipeline.data.example_weights import LAST
from mech_pipeline.data.rearranged import Rearrangement
from mech_pipeline.spec.choice import REARRANGING, Choice

Window = tuple[int, int, float]
"""(first update, last update, weight)."""


def windows(choice: Choice, target: int) -> list[Window]:
    """Where an example that is chosen has another weight than 1.

    Args:
        target: step that the choice looks at: the first update after it has this number.

    >>> windows(Choice(by="random", count=1, do="delete", window="before_target"), target=600)
    [(0, 599, 0.0)]
    >>> windows(Choice(by="random", count=1, do="duplicate", window=(100, 199), outside=True), target=600)[0]
    (0, 99, 2.0)
    >>> windows(Choice(by="random", count=1, do="delay", until=50), target=600)
    [(0, 49, 0.0)]
    >>> windows(Choice(by="random", count=1, do="reorder", to="last"), target=600)
    [(0, 599, 1.0)]
    """
    if choice.do in REARRANGING:
        return [(*_window(choice, target, default="before_target"), 1.0)]
    if choice.do == "delay":
        assert choice.until is not None, "checked when the file was read"
        return [(0, choice.until - 1, 0.0)]
    weight = {"delete": 0.0, "duplicate": 2.0}.get(choice.do, choice.weight)
    assert weight is not None, "checked when the file was read"
    first, last = _window(choice, target)
    if not choice.outside:
        return [(first, last, weight)]
    around = [(0, first - 1), (last + 1, LAST)]
    return [(begin, end, weight) for begin, end in around if begin <= end]


def rearrangement(choice: Choice, target: int, chosen: Examples, instead: Examples | None) -> Rearrangement:
    """The order that a choice asks for.

    Args:
        instead: what stands in for each chosen example, if something does.
    """
    ((first, last, _),) = windows(choice, target)
    order = np.argsort(chosen)
    if instead is not None:
        return Rearrangement(chosen[order], instead[order], first, last)
    whole = last - first + 1
    earlier = choice.earlier if choice.earlier is not None else whole if choice.to == "first" else -whole
    return Rearrangement(chosen[order], chosen[:0], first, last, earlier)


def _window(
    choice: Choice, target: int, default: Literal["before_target", "after_target"] | None = None
) -> tuple[int, int]:
    window = choice.window if choice.window is not None else default
    if window is None:
        return 0, LAST
    if window == "before_target":
        return 0, target - 1
    if window == "after_target":
        return target, LAST
    return window
