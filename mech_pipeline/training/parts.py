"""The parts of a checkpoint's file: `model.<name>`, `exp_avg.<name>`, `exp_avg_sq.<name>`."""

from collections.abc import Iterable

PARTS = {"model": "theta", "exp_avg": "m", "exp_avg_sq": "v"}
"""The field of a state that each part holds."""


def has_moments(names: Iterable[str]) -> bool:
    """Whether a file with tensors of these names holds the optimizer's moments beside the weights.

    >>> has_moments(["model.w", "exp_avg.w", "exp_avg_sq.w"]), has_moments(["model.w"])
    (True, False)
    """
    return set(PARTS) <= {name.partition(".")[0] for name in names}
