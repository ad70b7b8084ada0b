"""Whether a replay is the training that was recorded, and what may be the matter where it is not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.update.optimizer import State, coefficients

REPLAY_TOLERANCE = 1e-3
"""Largest distance of a replayed state from the recorded one, relative to how far the window moved: other kernels and the
order of sums leave 1e-6 to 1e-4; a wrong batch, rate or dropout leaves 1e-2 and more."""
_TINY = 1e-4
"""A root of the second moment below this share of the typical one is of a gradient that is mostly rounding."""
_NOT_AT_REST = "check the order of examples, learning rates, clipping, dropout and precision"


@dataclass(frozen=True)
class ReplayCheck:
    """A recorded state, and the one kept before it."""

    optimizer: Optimizer
    before: State
    kept: State

    def distance(self, replayed: State) -> float:
        """‖replayed − kept‖ / ‖movement of the window‖, one rounding of each stored weight subtracted; 0 if both rest."""
        off = float(torch.linalg.vector_norm(self._off(replayed)))
        moved = float(torch.linalg.vector_norm(self.kept.theta.double() - self.before.theta.double()))
        return off / moved if moved else (float("inf") if off else 0.0)

    def is_close(self, replayed: State) -> bool:
        """Whether the replay describes the training."""
        return self.distance(replayed) <= REPLAY_TOLERANCE

    def verify(self, replayed: State) -> None:
        """Raises if it does not.

        Raises:
            MechError: with what may be the cause.
        """
        if self.is_close(replayed):
            return
        problem = f"replaying the record does not reach the state kept at step {self.kept.step}: off by "
        problem += f"{self.distance(replayed):.1e} of the window's movement"
        if (share := self._share_of_rounding(replayed)) > 0.5:
            eps = self.optimizer.eps
            raise MechError(
                f"{problem}, {100 * share:.0f} % of it in weights whose gradient is rounding, which {self.optimizer.kind} "
                f"with eps={eps:g} makes full steps of",
                f"train with a larger eps, for example {max(1e-6, 100 * eps):g}; else {_NOT_AT_REST}",
            )
        raise MechError(problem, _NOT_AT_REST)

    def _off(self, replayed: State) -> Tensor:
        difference = (replayed.theta.double() - self.kept.theta.double()).abs()
        rounding = torch.finfo(self.kept.theta.dtype).eps * self.kept.theta.double().abs()
        return (difference - rounding).clamp_min(0)

    def _share_of_rounding(self, replayed: State) -> float:
        """The share of the squared distance that lies in weights whose gradient has no digit to be trusted."""
        if self.optimizer.kind == "sgd":
            return 0.0
        off = self._off(replayed).square()
        root = (replayed.v.double() / coefficients(self.optimizer, replayed.step - 1).r2).sqrt()
        tiny = root <= _TINY * root.square().mean().sqrt()
        return float(off[tiny].sum() / off.sum())
