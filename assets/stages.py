"""Which assets the work of a stage materializes."""

from mech_pipeline.assets.partitions import BY_HAND, scope_of
from mech_pipeline.pipeline.stage import Scope, Stage


def worked_on(stage: Stage) -> tuple[str, ...]:
    """The assets that a batch of a stage materializes; others of it are reported by these, or asked for by hand."""
    return tuple(name for name in stage.assets if name not in BY_HAND and by_step(stage) == _has_steps(name))


def by_step(stage: Stage) -> bool:
    """Whether its batches are ranges of steps."""
    return stage.scope in (Scope.CHECKPOINT, Scope.TARGET)


def _has_steps(asset: str) -> bool:
    return scope_of(asset) in (Scope.CHECKPOINT, Scope.TARGET)
