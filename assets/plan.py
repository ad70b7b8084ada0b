"""Group `experiments`: what an experiment asks for and costs, before anything is trained."""

import dagster as dg

from mech_pipeline.assets.partitions import plans
from mech_pipeline.assets.spec import ExperimentFile
from mech_pipeline.pipeline.cost import Cost, costs
from mech_pipeline.progress import format_count, format_seconds
from mech_pipeline.resources.store import ExperimentsResource


@dg.asset(group_name="experiments", partitions_def=plans, kinds={"yaml"}, code_version="1")
def experiment_plan(
    context: dg.AssetExecutionContext, config: ExperimentFile, experiments: ExperimentsResource
) -> dg.MaterializeResult:
    """Runs, updates, tokens, compute, disk and time of an experiment; some updates of each shape of model are timed. Seconds."""
    experiment = experiments.load(config.file, context.partition_key)
    found = costs(experiment.runs())
    seconds = [cost.seconds for cost in found if cost.seconds is not None]
    total = "unknown: not measured here" if len(seconds) < len(found) else format_seconds(sum(seconds))
    return dg.MaterializeResult(
        metadata={
            "question": experiment.question,
            "runs": len(found),
            "checkpoints": sum(cost.checkpoints for cost in found),
            "training updates": sum(cost.updates for cost in found),
            "training tokens": format_count(sum(cost.tokens for cost in found)),
            "training compute (FLOP)": f"{sum(cost.flop for cost in found):.2g}",
            "checkpoints on disk": _megabytes(sum(cost.checkpoint_bytes for cost in found)),
            "training, one run after another": total,
            "runs in detail": dg.MetadataValue.table([_record(cost) for cost in found]),
        },
    )


def _record(cost: Cost) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "run": cost.run,
            "parameters": format_count(cost.parameters),
            "updates": cost.updates,
            "tokens": format_count(cost.tokens),
            "checkpoints": cost.checkpoints,
            "on disk": _megabytes(cost.checkpoint_bytes),
            "time": "unknown" if cost.seconds is None else format_seconds(cost.seconds),
        }
    )


def _megabytes(size: float) -> str:
    """
    >>> _megabytes(1_234_567), _megabytes(5.4e9)
    ('1.2 MB', '5.4 GB')
    """
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
