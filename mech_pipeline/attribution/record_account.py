"""Accounts of a record: their check, in words for people who have no pipeline, and their rows."""

from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mech_pipeline.attribution.ledger.balance import checks
from mech_pipeline.attribution.ledger.ledger import Account
from mech_pipeline.errors import MechError


def verify_account(account: Account, change: float, unit: float) -> None:
    """Raises where an account is not one.

    Args:
        change: of the readout, true, in its own unit.
        unit: of the account, in the unit of the readout.

    Raises:
        MechError: values do not sum to the change, or examples do not sum to their update.
    """
    made, explained = account.updates, account.explained()
    row = {
        "gross": account.gross,
        "updates": len(made),
        "explained": explained,
        "change": change / unit,
        "update_error": account.update_error,
        "example_error": account.example_error,
    }
    passed = checks(row)
    window = f"the ledger of updates {made[0].before.step} to {made[-1].after.step} does not balance"
    if not passed["examples_sum_to_update"]:
        raise MechError(
            f"{window}: examples make up their update to {max(account.example_error, account.update_error):.1e} of it",
            "the loss of an example must not depend on the others of its batch (batch normalisation), and float32 is needed",
        )
    if not passed["ledger_sums_to_change"]:
        raise MechError(
            f"{window}: it explains {explained * unit:.6g} of a change of {change:.6g}",
            "the readout must be continuous in the weights (no argmax, comparison or random number) and the same in float64",
        )


def account_frame(account: Account, components: tuple[str, ...], unit: float) -> pl.DataFrame:
    """An account as rows.

    Args:
        unit: of the account, in the unit of the readout.
    """
    updates, batch, parts = account.examples.shape
    steps = np.array([made.before.step for made in account.updates])
    examples = np.concatenate([made.examples.numpy() for made in account.updates])

    def rows(term: str, update_step: np.ndarray, example: Any, value: Tensor, later: Tensor) -> pl.DataFrame:
        count = value.numel()
        return pl.DataFrame(
            {
                "update_step": np.repeat(update_step, count // len(update_step)),
                "term": [term] * count,
                "example": pl.Series(example, dtype=pl.Int64),
                "component": list(components) * (count // parts),
                "value": value.flatten().cpu().numpy() * unit,
                "value_later": later.flatten().cpu().numpy() * unit,
            }
        )

    of_examples = np.repeat(examples, parts)
    decay, momentum = [None] * (updates * parts), [None] * parts
    return pl.concat(
        [
            rows("example", np.repeat(steps, batch), of_examples, account.examples, account.examples_later),
            rows("weight_decay", steps, decay, account.weight_decay, account.weight_decay_later),
            rows("momentum", steps[:1], momentum, account.momentum, torch.zeros_like(account.momentum)),
        ]
    )
