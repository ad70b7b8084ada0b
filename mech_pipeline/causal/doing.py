"""What is done with chosen examples, as weights of their losses in windows of updates.

The batch loss is Σ_i w_i ℓ_i / B (`data/example_weights.py`): 0 leaves an example out and the others as they are, 2 shows
it twice.
"""

from mech_pipeline.data.example_weights import LAST
from mech_pipeline.spec.choice import Choice

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
    """
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


def _window(choice: Choice, target: int) -> tuple[int, int]:
    if choice.window is None:
        return 0, LAST
    if choice.window == "before_target":
        return 0, target - 1
    if choice.window == "after_target":
        return target, LAST
    return choice.window
