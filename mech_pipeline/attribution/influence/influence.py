"""Influence: the derivative of mechanisms at target steps by the weight of every example at every earlier update.

    I(i, s) = ∂M(θ_T) / ∂w_{i,s}        predicted effect of removing a set S: −Σ_{(i,s) ∈ S} I(i, s)

One sweep from the last target back to step 0 replays training window by window: memory is the states of one window.
Targets (a mechanism at a step) join where the sweep passes their step, and share its replay. Exact up to rounding; a
*prediction* only for small changes, and only where training is metasmooth (see `reliability`): a concentrated removal
leaves the linear range long before the ranking is useless.

Cost per update, in training steps: two per target, one for the gradient's graph, and one more for the replay where
memory does not hold the graphs of a window. Source: Engstrom et al. 2025; Ilyas & Engstrom 2025 (MAGIC); docs/method.md §2.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.attribution.influence.adjoint import Adjoint, Reversed, reverse_update
from mech_pipeline.attribution.influence.horizon import first_update
from mech_pipeline.attribution.influence.replay import Replayed
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.update.optimizer import Vector

Window = Callable[[], list[Replayed]]
"""Replays one window and returns its updates, first to last."""


@dataclass(frozen=True)
class Target:
    """A mechanism at a step.

    Attributes:
        gradient: ∇M(θ_T).
        horizon: how many updates before the step are swept; none: all.
    """

    name: str
    step: int
    gradient: Vector
    horizon: int | None = None

    def covers(self, update_step: int) -> bool:
        """Whether an update lies before the target and within its horizon."""
        return first_update(self.step, self.horizon) <= update_step < self.step


@dataclass(frozen=True)
class UpdateInfluence:
    """Scores of one update on one target.

    Attributes:
        target: index of the target.
        made: the update; its `examples` are what the scores are of.
        scores: ∂M(θ_T)/∂w of those examples, in the unit of M.
        tokens: the same by target token 1 … T−1 (the token whose loss is weighed); sums to `scores`.
        adjoint_norm: ‖∂M(θ_T)/∂θ_s‖ before the update.
        direction: u; ⟨∇ℓ_i, u⟩ / B is the score, in any split of the parameters.
    """

    target: int
    made: Update
    scores: Float[Tensor, " example"]
    tokens: Float[Tensor, "example token"]
    adjoint_norm: float
    direction: Vector

    @property
    def step(self) -> int:
        """The update s, from state s to state s + 1."""
        return self.made.before.step


@dataclass(frozen=True)
class SweepState:
    """Where a sweep stands before update `step`: what is needed to go on after a crash.

    Attributes:
        live: indices of the targets that the rows of the adjoint belong to.
        ended: targets that are done or whose adjoint overflowed.
    """

    step: int
    live: tuple[int, ...]
    ended: tuple[int, ...]
    adjoint: Adjoint | None


def influence_sweep(
    trainer: Trainer,
    targets: Sequence[Target],
    windows: Iterable[Window],
    report: Report = ignore_progress,
    resume: SweepState | None = None,
    on_window: Callable[[SweepState], None] = lambda state: None,
) -> Iterator[UpdateInfluence]:
    """Yields the scores of every update on every target, from the last update back to the first.

    Where the adjoint of a target is no longer finite, that target ends: earlier examples get no number rather than a
    wrong one.

    Args:
        windows: the windows before the last target, last first, without gaps; a target lies at the end of one.
        report: called with the number of updates done.
        resume: an earlier sweep's state; then the windows are those before it.
        on_window: called whenever a window is done.
    """
    sweep = _Sweep(trainer, list(targets), resume)
    done = 0
    for window in windows:
        replayed = window()
        while replayed:
            made = replayed.pop()  # its graph is freed as soon as it was used
            yield from sweep.reverse(made)
            done += 1
            report(done)
        on_window(sweep.state(made.update.before.step))
        if sweep.is_over:
            return


class _Sweep:
    """The adjoints of the targets that are under way."""

    def __init__(self, trainer: Trainer, targets: list[Target], resume: SweepState | None) -> None:
        self._trainer, self._targets = trainer, targets
        self._live: list[int] = [] if resume is None else list(resume.live)
        self._ended: set[int] = set() if resume is None else set(resume.ended)
        self._adjoint = None if resume is None else resume.adjoint

    @property
    def is_over(self) -> bool:
        """Whether every target has ended."""
        return len(self._ended) == len(self._targets)

    def state(self, step: int) -> SweepState:
        """What a crash leaves to go on from."""
        return SweepState(step, tuple(self._live), tuple(sorted(self._ended)), self._adjoint)

    def reverse(self, replayed: Replayed) -> Iterator[UpdateInfluence]:
        """The scores of one update; the adjoints move before it."""
        made = replayed.update
        self._join(made)
        if not self._live:
            return
        assert self._adjoint is not None, "live targets have adjoints"
        found = reverse_update(self._trainer, made, self._adjoint, replayed.graph)
        self._adjoint = found.adjoint
        norms = found.adjoint.norms().tolist()
        for row, index in enumerate(self._live):
            yield _scores(found, row, index, made, norms[row])
        self._leave(made.before.step)

    def _join(self, made: Update) -> None:
        """Targets whose step the sweep has come to."""
        for index, target in enumerate(self._targets):
            if target.step == made.after.step and index not in self._live and index not in self._ended:
                entering = Adjoint.at_target(target.gradient[None])
                self._adjoint = entering if self._adjoint is None else self._adjoint.joined(entering)
                self._live.append(index)

    def _leave(self, step: int) -> None:
        """Targets that are done, at the horizon or by overflow."""
        assert self._adjoint is not None, "live targets have adjoints"
        finite = self._adjoint.finite()
        within = torch.tensor([self._targets[i].covers(step - 1) for i in self._live], device=finite.device)
        stays = finite & within
        if bool(stays.all()):
            return
        self._ended |= {i for i, keep in zip(self._live, stays.tolist(), strict=True) if not keep}
        self._live = [i for i, keep in zip(self._live, stays.tolist(), strict=True) if keep]
        self._adjoint = self._adjoint.rows(stays) if self._live else None


def _scores(found: Reversed, row: int, target: int, made: Update, norm: float) -> UpdateInfluence:
    tokens = found.tokens[row]
    return UpdateInfluence(
        target=target,
        made=made,
        scores=tokens.double().sum(dim=1).to(tokens.dtype),
        tokens=tokens,
        adjoint_norm=norm,
        direction=found.direction[row],
    )
