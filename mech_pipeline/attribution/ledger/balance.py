"""The two checks of every account, and how exact float32 lets them be."""

from collections.abc import Mapping
from typing import Any

from mech_pipeline.attribution.ledger.simpson import ABSOLUTE_ERROR

BALANCE_TOLERANCE = 1e-5
"""Largest |explained − change| per window, relative to its gross movement."""
RESOLUTION = 2e-6
RESOLUTION_PER_UPDATE = ABSOLUTE_ERROR
"""Added to it, in the unit of M: float32 gradients of a loss of some nats sum to M no finer (1e-7 to 7e-7 were seen)."""
ERROR_TOLERANCE = 1e-6
"""Largest update_error and example_error; fp32 sums of 1e5 terms reach about 1e-7."""


def checks(balance: Mapping[str, Any]) -> dict[str, bool]:
    """The two checks of a window, from its row in `ledger_balance`."""
    allowed = BALANCE_TOLERANCE * balance["gross"] + RESOLUTION + RESOLUTION_PER_UPDATE * balance["updates"]
    return {
        "examples_sum_to_update": max(balance["update_error"], balance["example_error"]) <= ERROR_TOLERANCE,
        "ledger_sums_to_change": abs(balance["explained"] - balance["change"]) <= allowed,
    }
