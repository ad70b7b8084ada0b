"""A signal: a named number of a checkpoint that is known without naming a mechanism, an example or a behaviour."""

from collections.abc import Callable
from dataclasses import dataclass

from mech_pipeline.signals.moment import Moment


@dataclass(frozen=True)
class Signal:
    """A number of a moment of training.

    Attributes:
        compute: from a moment to the number; NaN where it abstains.
        unit: of the number.
        meaning: what it says, in half a sentence.
        source: where it comes from.
        baseline: whether it is one that the others have to beat.
        version: raise it when the numbers change; exactly this signal is then computed again.
        name: given by its file.
    """

    compute: Callable[[Moment], float]
    unit: str
    meaning: str
    source: str
    baseline: bool = False
    version: str = "1"
    name: str = "unnamed"
