"""Was state t + 1 really made from state t with this batch?

    residual = ‖Δθ predicted − Δθ kept‖ / ‖Δθ kept‖

About rounding for the right batch; of the order of an example's share for a batch in which one example is another, and
about 1 for a wrong batch. One rounding of each stored weight is subtracted (`attribution/replay_check.py`), since a state
cannot tell less than that.

Between two kept states there may be many updates. Where the run's own replay ends in the second state with the same bits,
the states in between are known as surely as the kept ones, and each update is judged by itself; where it does not (an
imported run, other kernels), the stretch is judged as a whole, from the one kept state to the other. `evidence` says which.

Costs one replay. A claim that differs from the run's own order costs one more gradient for each update that differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from mech_pipeline.attribution.replay_check import ReplayCheck
from mech_pipeline.errors import MechError
from mech_pipeline.exchange.claim import Claim
from mech_pipeline.pipeline.needs import REPLAY
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.checkpoints import state_sha256
from mech_pipeline.training.device import computing
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.update.optimizer import State

TOLERANCE = 1e-5
"""A larger residual is another batch: right batches leave some 1e-7 on other kernels, one altered example 1e-2 and more."""


@dataclass(frozen=True)
class Audited:
    """One update, or one stretch of updates that can be judged only as a whole.

    Attributes:
        first_step, last_step: updates from state `first_step` to state `last_step`.
        evidence: kept: both states are stored; replayed: between stored states that a replay joins bit for bit.
        judged_by: weights, or the momentum where no weight moved (a learning rate of 0).
        moved: ‖Δθ‖.
        residual: see above; 0: the same bits, up to the rounding of each weight.
    """

    first_step: int
    last_step: int
    evidence: str
    judged_by: str
    moved: float
    residual: float


def audit(run: OpenRun, claim: Claim, first: int, last: int, report: Report = ignore_progress) -> Iterator[Audited]:
    """Judges the updates between the kept states of a window, first to last.

    Args:
        first, last: kept states that bound the window.
        report: called with the number of updates judged.

    Raises:
        MechError: a state is missing or damaged, or the claim does not fit the run.
    """
    check_replayable(run)
    with computing(run.spec.training):
        steps = [step for step in sorted(run.checkpoints) if first <= step <= last]
        for begin, end in pairwise(steps):
            yield from _stretch(run, claim, begin, end)
            report(end - first)


def _stretch(run: OpenRun, claim: Claim, begin: int, end: int) -> list[Audited]:
    before, kept = run.state(begin), run.state(end)
    claimed = replace(run.trainer, order=claim)
    if end - begin > 1:
        updates = list(run.trainer.updates(before, end))
        if state_sha256(updates[-1].after) == state_sha256(kept):
            return [_judged(run, claimed, made) for made in updates]
    (*_, last) = claimed.updates(before, end)
    return [_against(run, before, kept, last.after)]


def _judged(run: OpenRun, claimed: Trainer, made: Update) -> Audited:
    """One update of a proven replay: the same batch makes the same bits, so only another one is computed."""
    after = made.after
    if not torch.equal(made.examples, claimed.batch(made.before.step)):
        after = claimed.step(made.before).after
    return replace(_against(run, made.before, made.after, after), evidence="replayed")


def _against(run: OpenRun, before: State, kept: State, predicted: State) -> Audited:
    moved = float(torch.linalg.vector_norm(kept.theta.double() - before.theta.double()))
    compared = [before, kept, predicted] if moved else [_momentum(state) for state in (before, kept, predicted)]
    residual = ReplayCheck(run.spec.optimizer, *compared[:2]).distance(compared[2])
    return Audited(before.step, kept.step, "kept", "weights" if moved else "momentum", moved, residual)


def _momentum(state: State) -> State:
    """The first moment in the place of the weights: where a rate of 0 moves no weight, it still tells the batch."""
    return replace(state, theta=state.m)


def check_replayable(run: OpenRun) -> None:
    """Refuses a run whose checkpoints do not bring what a replay needs.

    Raises:
        MechError: what is lacking.
    """
    if missing := sorted(REPLAY - run.brings):
        raise MechError(
            f"checkpoints of run {run.spec.run} do not bring {' and '.join(missing)}, so nothing can be replayed from them",
            "choose a run that was trained here, or imported with them",
        )
