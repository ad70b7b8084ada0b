"""What a replay with other kernels leaves: the line `replay_mismatch` of a window of a run that was trained elsewhere.

    M(θ_published) − M(θ_replayed) = ⟨ḡ, θ_published − θ_replayed⟩,     ḡ the average of ∇M along the straight line between them

split by component like every other line. With it the lines of a window sum to the published run's own change of M: the other
lines are exact for the replayed twin that begins at the published state, and this one says how far the twin is away at the end.
"""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from mech_pipeline.attribution.ledger.bisection import GradientAt, ValueAt
from mech_pipeline.attribution.ledger.quadrature import path_averages
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector


@dataclass(frozen=True)
class Mismatch:
    """The line of one mechanism.

    Attributes:
        change: M(θ_published) − M(θ_replayed), true; none: M was not given.
    """

    by_component: Float[Tensor, " component"]
    change: float | None


def replay_mismatch(
    components: Components, gradient_at: GradientAt, last: Update, published: Vector, value_at: ValueAt | None
) -> Mismatch:
    """From the state after a replayed window's last update to the published weights of that step."""
    away = replace(last, before=last.after, after=replace(last.after, theta=published))
    along = path_averages(gradient_at, [away], value_at)
    moved = published.double() - last.after.theta.double()
    return Mismatch(components.sums(along.gradients[0].double() * moved), along.change)
