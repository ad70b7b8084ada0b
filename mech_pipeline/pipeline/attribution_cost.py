"""What ledger, influence and retraining cost, in updates of training, before anything is trained.

Unit costs were measured in the demo (docs/method.md, end): an update of the ledger takes 3 updates of training for each
mechanism; an update of a sweep 2 for graph and replay and 2 for each target (docs/method.md §2, Cost); metasmoothness
replays each update twice; a trajectory of adjoint_mean is a sweep and a training; a retraining is training up to its
target. Cheaper estimators and analysis are left out.
Influence at formation is counted up to the last update, because nobody knows yet when it forms: it is at most that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mech_pipeline.attribution.retraining.removals import asked_removals
from mech_pipeline.pipeline.cost import Cost
from mech_pipeline.pipeline.influence.wanted import planned_targets
from mech_pipeline.spec.analysis import Influence
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.tables.all import ADJOINT

_LEDGER, _SWEEP, _TARGET, _PERTURBED = 3.0, 2.0, 2.0, 2.0


@dataclass(frozen=True)
class AttributionCost:
    """Of one run, in updates of training."""

    ledger: float
    influence: float
    retraining: float


def attribution_cost(spec: RunSpec) -> AttributionCost:
    """What a run's spec asks for beside training and analysis."""
    targets = _targets(spec)
    retrained = float(len(asked_removals(spec.influence)) * (targets[-1] if targets else 0))
    return AttributionCost(_LEDGER * spec.training.steps * len(spec.ledger), _influence(spec, targets), retrained)


def disk_bytes(spec: RunSpec, cost: Cost) -> int:
    """Checkpoints and gradient tensors (float32); tables add some percent."""
    gradients = len(spec.gradients) + 1 if spec.gradients else 0
    return cost.checkpoint_bytes + 4 * cost.parameters * gradients * cost.checkpoints


def _targets(spec: RunSpec) -> list[int]:
    """The steps that influence aims at, rising; the last step stands for one that is not known yet."""
    if not spec.influence.mechanisms:
        return []
    return [spec.training.steps] if spec.influence.at == "formation" else planned_targets(spec)


def _influence(spec: RunSpec, targets: list[int]) -> float:
    asked = spec.influence
    reach = [(max(0, step - (asked.horizon or step)), step) for step in targets]
    exact = _exact(asked, reach) if ADJOINT in asked.methods else 0.0
    if "adjoint_mean" not in asked.methods:
        return exact
    swept = sum(end - begin for begin, end in reach) * (1 + _SWEEP + _TARGET * len(asked.mechanisms))
    return exact + asked.adjoint_mean.trajectories * swept


def _exact(asked: Influence, reach: Sequence[tuple[int, int]]) -> float:
    """Of the one sweep and metasmoothness, for targets that reach over updates begin … end − 1."""
    each = sum(end - begin for begin, end in reach)
    swept = len({update for begin, end in reach for update in range(begin, end)})
    steps = asked.metasmoothness_steps
    perturbed = sum(end - begin if steps is None else min(steps, end - begin) for begin, end in reach)
    return _SWEEP * swept + _TARGET * len(asked.mechanisms) * each + _PERTURBED * perturbed
