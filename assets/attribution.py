"""Group `attribution`: what happened (ledger) and what would happen (influence). Two questions, two assets."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from mech_pipeline.assets.events import PartitionEvents, emitter, progress
from mech_pipeline.assets.partitions import BATCH, partition, run_step, split_keys
from mech_pipeline.assets.previews import rows_of_steps
from mech_pipeline.assets.training import checkpoint
from mech_pipeline.attribution.retraining.trust import influence_verdicts
from mech_pipeline.pipeline.influence import influence as influence_stage
from mech_pipeline.pipeline.ledger import balance as ledger_balance
from mech_pipeline.pipeline.ledger import ledger as ledger_stage
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.reading import connect, reading

CHECKS = ("examples_sum_to_update", "ledger_sums_to_change")


@dg.asset(
    group_name="attribution",
    partitions_def=run_step,
    deps=[checkpoint],
    kinds={"deltalake"},
    pool="gpu_analysis",
    code_version=ledger_stage.CODE_VERSION,
    backfill_policy=BATCH,
    output_required=False,
)
def ledger(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """What happened since the previous checkpoint, per example and component. Exact; not a prediction. 0.1 s an update."""
    run, steps = split_keys(context.partition_keys)
    opened = OpenRun(store.open(), store.run_spec(run))
    if not opened.spec.accounts:
        context.log.info(f"the experiment asks for no ledger on run {run}")
        return
    steps = [step for step in steps if step in opened.checkpoints and step in opened.planned and step > 0]
    keys = [partition(run, step) for step in steps]
    events = PartitionEvents(context, "ledger", ledger_stage.CODE_VERSION, {"checkpoint": lambda key: key}, keys)

    def on_steps(finished: list[int]) -> None:
        rows, balances = rows_of_steps(opened.store, "ledger", run, finished), _balances(opened, run)
        events.report_stored(opened.store, run, finished, {step: {**balances[step], **rows[step]} for step in finished})

    def on_balance(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for name, passed in ledger_balance.checks(row).items():
                context.log_event(_evaluation(run, row, name, passed))

    windows = {step for step, _ in ledger_stage.pending(opened, steps)}
    report = progress(context, f"ledger {run}", len(windows), "windows")
    ledger_stage.compute_ledger(opened, steps, on_steps, report, on_balance)
    return
    yield


def _evaluation(run: str, row: dict[str, Any], name: str, passed: bool) -> dg.AssetCheckEvaluation:
    metadata = {key: row[key] for key in ("mechanism", "change", "explained", "gross", "update_error", "example_error")}
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("ledger"),
        check_name=name,
        passed=passed,
        metadata=metadata,
        partition=partition(run, row["step"]),
        severity=dg.AssetCheckSeverity.ERROR,
        blocking=True,
    )


def _balances(opened: OpenRun, run: str) -> dict[int, dict[str, float]]:
    with reading(opened.store.root, ["ledger_balance"]) as connection:
        rows = connection.execute(
            "select step, mechanism, change, explained - change from ledger_balance where run = ?", [run]
        ).fetchall()
    found: dict[int, dict[str, float]] = {}
    for step, mechanism, change, imbalance in rows:
        found.setdefault(step, {}).update({f"change of {mechanism}": change, f"imbalance of {mechanism}": imbalance})
    return found


def _ledger_check(name: str, description: str) -> dg.AssetChecksDefinition:
    """A check that can also be run by hand on what is stored; the ledger evaluates it on every partition as it writes."""

    @dg.asset_check(asset=ledger, name=name, description=description, blocking=True)
    def check(store: StoreResource) -> dg.AssetCheckResult:
        with reading(store.open().root, ["ledger_balance"]) as connection:
            rows = connection.sql("select * from ledger_balance").pl().to_dicts()
        failed = [f"{row['run']}|{row['step']}" for row in rows if not ledger_balance.checks(row)[name]]
        return dg.AssetCheckResult(passed=not failed, metadata={"windows": len(rows), "failed": failed[:20]})

    return check


ledger_checks = [
    _ledger_check(
        CHECKS[0], "Contributions of all examples add up to the applied update: clip, momentum and decay included."
    ),
    _ledger_check(CHECKS[1], "All entries of a window add up to the true change of the mechanism."),
]


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "influence",
            deps=[checkpoint],
            skippable=True,
            group_name="attribution",
            kinds={"deltalake"},
            code_version=influence_stage.CODE_VERSION,
            description="What would happen: effect on a mechanism at this step of weighting each earlier example. A "
            "prediction, for small changes only, where `reliability` allows. About three training steps an update and mechanism.",
        ),
        dg.AssetSpec(
            "reliability",
            deps=[checkpoint],
            skippable=True,
            group_name="attribution",
            kinds={"deltalake"},
            code_version=influence_stage.CODE_VERSION,
            description="When that influence may be trusted: metasmoothness (two trainings more), adjoint growth, horizon.",
        ),
    ],
    partitions_def=run_step,
    can_subset=False,
    backfill_policy=BATCH,
    pool="gpu_analysis",
)
def influence_sweep(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
    """One sweep backwards from the last target step: influence of all earlier examples, and its reliability."""
    run, steps = split_keys(context.partition_keys)
    opened = OpenRun(store.open(), store.run_spec(run))
    if not opened.spec.influence.mechanisms:
        context.log.info(f"the experiment asks for no influence on run {run}")
        return
    if len(steps) > 1:  # a range of partitions: of a batch, the run's own targets; a single step is meant as it is
        steps = [step for step in influence_stage.target_steps(opened) if step in steps]
    keys = [partition(run, step) for step in steps]
    tables = ("influence", "reliability")
    events = {
        name: PartitionEvents(context, name, influence_stage.CODE_VERSION, {"checkpoint": lambda key: key}, keys)
        for name in tables
    }
    influence_stage.compute_influence(opened, steps, emitter(context))
    for step in steps:
        for name in tables:
            rows = rows_of_steps(opened.store, name, run, [step])[step]
            measures = {**_measures(opened, run, step, name), **rows}
            events[name].report_stored(opened.store, run, [step], {step: measures})
    return
    yield


_MEASURES = {
    "influence": "with here as (select *, if(method = 'adjoint', '', method || ' ') as by_method from influence "
    "where run = ? and step = ?) "
    "select by_method || 'examples', count(distinct example_id)::double from here group by by_method union all "
    "select by_method || 'scores outside their reliable regime', (count(*) filter (reliable = false))::double from here "
    "group by by_method",
    "reliability": "select mechanism || ' ' || if(method = 'adjoint', '', method || ' ') || metric, value from reliability "
    "where run = ? and step = ? and update_step = -1",
}


def _measures(opened: OpenRun, run: str, step: int, table: str) -> dict[str, float]:
    with reading(opened.store.root, [table]) as connection:
        return dict(connection.execute(_MEASURES[table], [run, step]).fetchall())


@dg.asset_check(
    asset="influence",
    description="No influence lies outside the regime in which it may be trusted: metasmooth training, within the horizon, "
    "confirmed by retraining where that was measured.",
)
def influence_is_reliable(store: StoreResource) -> dg.AssetCheckResult:
    """A warning, not an error: the scores are stored with their flag, and every reader can leave them out."""
    with connect(store.open().root, ["influence", "lds"]) as connection:
        verdicts = influence_verdicts(connection)
    return dg.AssetCheckResult(
        passed=not any(verdict.flagged for verdict in verdicts),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "flagged": {verdict.name: verdict.words for verdict in verdicts if verdict.flagged},
            "not measured": [verdict.name for verdict in verdicts if verdict.unknown][:20],
            "targets": len(verdicts),
        },
    )
