"""The stages of the pipeline, one table.

Plan, batches of work, the launcher's order, Dagster's assets, jobs and their texts, previews, `mech verify --repair`,
`mech status` and the table in docs/architecture.md are derived from it. A new stage is one module and one entry here
(docs/extend.md shows it).
"""

from collections.abc import Mapping

from mech_pipeline.pipeline.analysis.stages import ANALYSIS, CIRCUITS, EXAMPLE_LOSSES, FORMATION, NEURONS, READOUTS
from mech_pipeline.pipeline.choice.stage import CHOICE
from mech_pipeline.pipeline.comparison.stage import COMPARISON
from mech_pipeline.pipeline.discovery.stages import ATOMS, DISCOVERY, MOVEMENT
from mech_pipeline.pipeline.influence.stage import INFLUENCE
from mech_pipeline.pipeline.ledger.stage import LEDGER
from mech_pipeline.pipeline.retraining.stage import RETRAINING
from mech_pipeline.pipeline.signals.stage import SCORING, SIGNALS
from mech_pipeline.pipeline.stage import Output, Stage
from mech_pipeline.pipeline.tokens.stage import SPEC
from mech_pipeline.pipeline.training.stage import TRAINING
from mech_pipeline.pipeline.upkeep import COMPACTION, REPORT
from mech_pipeline.spec.run import RunSpec

STAGES: tuple[Stage, ...] = (
    SPEC,
    CHOICE,
    TRAINING,
    ANALYSIS,
    CIRCUITS,
    NEURONS,
    READOUTS,
    EXAMPLE_LOSSES,
    SIGNALS,
    LEDGER,
    FORMATION,
    INFLUENCE,
    RETRAINING,
    COMPARISON,
    MOVEMENT,
    DISCOVERY,
    ATOMS,
    SCORING,
    COMPACTION,
    REPORT,
)
"""In the order in which they read each other."""


def stage_of(name: str) -> Stage:
    """A stage by name."""
    return next(stage for stage in STAGES if stage.name == name)


def reads_of(spec: RunSpec) -> dict[str, list[str]]:
    """The stages of other runs that a run waits for, by run."""
    found: dict[str, list[str]] = {}
    for read in (read for stage in STAGES if stage.asked(spec) for read in stage.inputs):
        for run in read.of(spec) if read.of is not None else ():
            found.setdefault(run, []).append(read.stage)
    return found


def output_of(asset: str) -> Output:
    """What is said of an asset."""
    return next(output for stage in STAGES for output in stage.outputs if output.name == asset)


def makers() -> Mapping[str, str]:
    """The asset that fills each table."""
    return {table: output.name for stage in STAGES for output in stage.outputs for table in output.tables}
