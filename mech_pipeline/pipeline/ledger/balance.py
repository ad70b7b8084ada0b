"""The error of a window that fails a check of `attribution/ledger/balance.py`."""

from collections.abc import Mapping
from typing import Any

from mech_pipeline.attribution.ledger.balance import checks
from mech_pipeline.errors import MechError


class LedgerImbalance(MechError):
    """A window whose contributions do not add up: something was left out of the account."""

    def __init__(self, balance: Mapping[str, Any]) -> None:
        self.balance = dict(balance)
        failed = ", ".join(name for name, passed in checks(balance).items() if not passed)
        super().__init__(
            f"ledger of {balance['mechanism']} at step {balance['step']} of run {balance['run']} fails {failed}: explained "
            f"{balance['explained']:.9g} of a change of {balance['change']:.9g}, update error {balance['update_error']:.2g}, "
            f"example error {balance['example_error']:.2g}",
            "this is a fault in the program or in a checkpoint; nothing of it was stored",
        )
