"""Numbers in words: how a report writes steps, means, shares and what it does not know."""

import math

from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.spec.analysis import WEIGHTS

UNKNOWN = "–"
_BEST_HEAD = "best_head:"


def counted(n: int, thing: str) -> str:
    """How many there are.

    >>> counted(1, "run"), counted(3, "run")
    ('n = 1 run', 'n = 3 runs')
    """
    return f"n = {n} {thing}{'' if n == 1 else 's'}"


def number(value: float | None, digits: int = 3) -> str:
    """A value with a few significant digits, or a dash.

    >>> number(1234.56), number(0.000123), number(1e27), number(None)
    ('1,235', '0.000123', '1e+27', '–')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def plus_minus(mean: float | None, sd: float | None) -> str:
    """`mean ± standard deviation`; the mean alone where one seed gives no spread."""
    return number(mean) if sd is None else f"{number(mean)} ± {number(sd)}"


def interval(value: float, lower: float | None, upper: float | None) -> str:
    """A value with its interval, or alone where there is none.

    >>> interval(0.9, 0.81, 0.95), interval(1.0, None, None)
    ('0.90 [0.81, 0.95]', '1.00')
    """
    return f"{value:.2f}" if lower is None or upper is None else f"{value:.2f} [{lower:.2f}, {upper:.2f}]"


def percent(share: float) -> str:
    """A share of 1 as whole percent."""
    return f"{100 * share:.0f} %"


def signal_name(signal: str) -> str:
    """The watched value in words: a mechanism's own name, or the best head by a detector."""
    return f"best head by {signal.removeprefix(_BEST_HEAD)}" if signal.startswith(_BEST_HEAD) else signal


def signal_unit(signal: str) -> str:
    """The unit of a mechanism, of the detector in `best_head:<detector>`, or of the ledger's account of the weights."""
    if signal.startswith(_BEST_HEAD):
        return DETECTORS[signal.removeprefix(_BEST_HEAD)].unit
    if signal == WEIGHTS:
        return "L2 distance of weights"
    return MECHANISMS[signal].unit if signal in MECHANISMS else "unit not known any more"
