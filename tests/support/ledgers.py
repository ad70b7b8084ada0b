"""The ledger of a tiny training, window by window."""

from mech_pipeline.attribution.ledger.ledger import replay_with_factors, window_account
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.training.update.optimizer import State
from tests.support.models import components, mechanism_of

SMOOTH = "induction_copy_advantage"


def ledger(trainer, probe, bounds, mechanism=SMOOTH):
    """The accounts of consecutive windows, first to last, and the true change of each."""
    at, scalar = mechanism_of(trainer, probe, mechanism)
    state, windows = State.initial(trainer.flat.vector), []
    for until in bounds:
        windows.append(replay_with_factors(trainer, state, until))
        state = windows[-1][0][-1].after
    parts = components(trainer)
    accounts, carry = [], None
    for updates, factors in reversed(windows):
        account = window_account(
            trainer.optimizer, parts, Contraction(trainer.flat, parts), at, updates, factors, carry
        )
        carry = account.carry
        accounts.insert(0, account)
    changes = [scalar(a.updates[-1].after.theta) - scalar(a.updates[0].before.theta) for a in accounts]
    return accounts, changes
