"""Group `experiments`: what an experiment asks for and costs, before anything is trained."""

from collections.abc import Iterable, Sequence

import dagster as dg

from mech_pipeline.assets.partitions import plans
from mech_pipeline.assets.spec import ExperimentFile
from mech_pipeline.pipeline.estimate import RunEstimate, estimates
from mech_pipeline.progress import format_count, format_seconds
from mech_pipeline.resources.store import ExperimentsResource, StoreResource

PARTS = ("training", "ledger", "influence", "retraining", "analysis and the rest")
"""What `RunEstimate.seconds` are of."""


@dg.asset(group_name="experiments", partitions_def=plans, kinds={"yaml"}, code_version="1")
def experiment_plan(
    context: dg.AssetExecutionContext, config: ExperimentFile, experiments: ExperimentsResource, store: StoreResource
) -> dg.MaterializeResult:
    """Runs, updates, tokens, compute, disk and hours of an experiment, as `mech plan` tells them: some updates of each shape of
    model are timed, and stages count as they took before. Seconds.
    """
    experiment = experiments.load(config.file, context.partition_key)
    found = estimates(experiment.runs(), store.open())
    parts = dict(zip(PARTS, map(_total, zip(*(each.seconds for each in found), strict=True)), strict=True))
    costs = [each.cost for each in found]
    limits = sorted({reason for each in found for reason in each.at_most})
    return dg.MaterializeResult(
        metadata={
            "question": experiment.question,
            "runs": len(found),
            "checkpoints": sum(cost.checkpoints for cost in costs),
            "training updates": sum(cost.updates - each.taken for cost, each in zip(costs, found, strict=True)),
            "training tokens": format_count(sum(cost.tokens for cost in costs)),
            "training compute (FLOP)": f"{sum(cost.flop for cost in costs):.2g}",
            "disk": _megabytes(sum(each.disk_bytes for each in found)),
            **{f"{name}, one run after another": _said(seconds) for name, seconds in parts.items() if seconds != 0},
            "all, one run after another": _said(_total(parts.values()), limits),
            "not counted": ", ".join(sorted({name for each in found for name in each.not_counted})) or "nothing",
            "runs in detail": dg.MetadataValue.table([_record(each) for each in found]),
        },
    )


def _total(seconds: Iterable[float | None]) -> float | None:
    """None if one of them is not known."""
    parts = list(seconds)
    return None if None in parts else sum(part or 0.0 for part in parts)


def _said(seconds: float | None, limits: Sequence[str] = ()) -> str:
    """
    >>> _said(90.0), _said(90.0, ["runs may stop early"]), _said(None)
    ('1 min 30 s', 'at most 1 min 30 s: runs may stop early', 'unknown: not measured here')
    """
    if seconds is None:
        return "unknown: not measured here"
    return f"at most {format_seconds(seconds)}: {'; '.join(limits)}" if limits else format_seconds(seconds)


def _record(each: RunEstimate) -> dg.TableRecord:
    cost, seconds = each.cost, _total(each.seconds)
    return dg.TableRecord(
        {
            "run": cost.run,
            "parameters": format_count(cost.parameters),
            "updates": cost.updates,
            "taken over": each.taken,
            "tokens": format_count(cost.tokens),
            "checkpoints": cost.checkpoints,
            "on disk": _megabytes(each.disk_bytes),
            "time": "unknown" if seconds is None else format_seconds(seconds),
        }
    )


def _megabytes(size: float) -> str:
    """
    >>> _megabytes(1_234_567), _megabytes(5.4e9)
    ('1.2 MB', '5.4 GB')
    """
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
