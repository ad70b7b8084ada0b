"""Group `precursors`: values of signals, and the alarm that an experiment has locked, heard while its runs train."""

from collections.abc import Iterator

import dagster as dg

from mech_pipeline.assets.events import emitter
from mech_pipeline.assets.factory import step_asset
from mech_pipeline.assets.partitions import partition, split_keys
from mech_pipeline.pipeline.run_row import stored_spec
from mech_pipeline.pipeline.signals.alert import Alert, alert_of
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.store import Store

CHECK = "no_alarm"
_SHOWN = 20


def _listen(context: dg.AssetExecutionContext, store: Store) -> None:
    """Warns on every checkpoint from the one on at which the locked alarm rang: a warning does not go away by itself."""
    run, steps = split_keys(context.partition_keys)
    alert = alert_of(store, stored_spec(store, run))
    if alert is None:
        return
    for step in steps:
        rings = alert.step is not None and alert.step <= step
        context.log_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("checkpoint"),
                check_name=CHECK,
                passed=not rings,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"says": alert.words, "signal": alert.rule.signal, "target": alert.claim},
                partition=partition(run, step),
            )
        )
    if alert.step in steps:
        emitter(context)(alert.words)


signal_values = step_asset(stage_of("signals"), at_end=_listen)
"""Every signal at each checkpoint, and whether the locked alarm rings by then."""


@dg.asset_check(
    asset="checkpoint",
    name=CHECK,
    description="The alarm that an experiment has locked (docs/signals.md) has not rung in a run. A warning: something may be "
    "about to form. Evaluated as signals are measured, also while a run trains; by hand: of all runs.",
)
def no_alarm(store: StoreResource) -> dg.AssetCheckResult:
    """By hand, of every run whose experiment has a lock."""
    alerts = [*_alerts(store.open())]
    rang = [alert.words for alert in alerts if alert.step is not None]
    return dg.AssetCheckResult(
        passed=not rang,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"runs listened to": len(alerts), "rang": len(rang), "first of these": rang[:_SHOWN]},
    )


def _alerts(store: Store) -> Iterator[Alert]:
    with store.reading("runs", "signal_locks") as connection:
        rows = connection.execute(
            "select run from runs where experiment in (select experiment from signal_locks) order by run"
        ).fetchall()
    for (run,) in rows:
        alert = alert_of(store, stored_spec(store, run))
        if alert is not None:
            yield alert
