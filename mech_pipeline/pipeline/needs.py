"""What the checkpoints of a run must bring for a stage to read them."""

from enum import StrEnum


class Need(StrEnum):
    """What a checkpoint must bring for a stage to read it. What was trained here brings all of it.

    weights: the parameters. moments: the optimizer's state. order: which examples each update saw. pool: those examples.
    """

    WEIGHTS = "weights"
    MOMENTS = "moments"
    ORDER = "order"
    POOL = "pool"


REPLAY = frozenset(Need)
"""What a stage needs that trains pieces of the run again."""
