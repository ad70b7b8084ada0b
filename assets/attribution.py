"""Group `attribution`: what happened (ledger, neurons) and what would happen (influence, and retraining to test it)."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from mech_pipeline.assets.factory import step_asset
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.pictures import carried
from mech_pipeline.assets.previews import readable
from mech_pipeline.attribution.ledger import balance as ledger_balance
from mech_pipeline.attribution.retraining.trust import influence_verdicts
from mech_pipeline.pipeline.stage import View
from mech_pipeline.pipeline.stages import stage_of
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.retraining.figures import draw_predictions
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.store import Store

CHECKS = ("examples_sum_to_update", "ledger_sums_to_change")


def _log_balances(context: dg.AssetExecutionContext, run: str) -> Callable[[list[dict[str, Any]]], None]:
    def on_rows(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for name, passed in ledger_balance.checks(row).items():
                context.log_event(_evaluation(run, row, name, passed))

    return on_rows


def _evaluation(run: str, row: dict[str, Any], name: str, passed: bool) -> dg.AssetCheckEvaluation:
    metadata = {
        key: readable(row[key])
        for key in ("mechanism", "change", "explained", "gross", "update_error", "example_error")
    }
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("ledger"),
        check_name=name,
        passed=passed,
        metadata=metadata,
        partition=partition(run, row["step"]),
        severity=dg.AssetCheckSeverity.ERROR,
        blocking=True,
    )


ledger = step_asset(
    stage_of("ledger"),
    curves={
        "ledger": "select step, 'change of ' || mechanism, change from ledger_balance where run = $1 union all "
        "select step, 'imbalance of ' || mechanism, explained - change from ledger_balance where run = $1"
    },
    on_rows=_log_balances,
)

neurons = step_asset(
    stage_of("neurons"),
    curves={
        "neurons": "select step, 'median effective tokens', median(effective_tokens) from neurons where run = $1 and "
        "part = 'in' group by step union all select step, 'largest imbalance', max(abs(imbalance)) from neurons where "
        "run = $1 and part = 'in' group by step"
    },
)


def _ledger_check(name: str, description: str) -> dg.AssetChecksDefinition:
    """A check that can also be run by hand on what is stored; the ledger evaluates it on every partition as it writes."""

    @dg.asset_check(asset="ledger", name=name, description=description, blocking=True)
    def check(store: StoreResource) -> dg.AssetCheckResult:
        with store.open().reading("ledger_balance") as connection:
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


_MEASURES = {
    "influence": "with here as (select *, if(method = 'adjoint', '', method || ' ') as by_method from influence "
    "where run = $run and step = $step) "
    "select by_method || 'examples', count(distinct example_id)::double from here group by by_method union all "
    "select by_method || 'scores outside their reliable regime', (count(*) filter (reliable = false))::double from here "
    "group by by_method",
    "reliability": "select mechanism || ' ' || if(method = 'adjoint', '', method || ' ') || metric, value from reliability "
    "where run = $run and step = $step and update_step = -1",
    "retrainings": "select 'retrainings', count(distinct removal)::double from retrainings where run = $run and step = $step "
    "union all select 'change of ' || mechanism || ' at ' || fraction, avg(change) from retrainings "
    "where run = $run and step = $step and removal like 'random-%' and change is not null group by mechanism, fraction",
    "lds": "select mechanism || if(method = 'adjoint', '', ' ' || method) || ' ' || metric || ' at ' || fraction, value "
    "from lds where run = $run and step = $step union all "
    "select 'retrainings', max(n)::double from lds where run = $run and step = $step",
}


def _measures(view: View, output: str, step: int) -> dict[str, Any]:
    """Numbers of one target, and of `lds` the figure of predictions against what happened."""
    with view.store.reading("influence", "reliability", "removals", "retrainings", "lds") as connection:
        parameters = {"run": view.spec.run, "step": step}
        numbers: dict[str, Any] = dict(connection.execute(_MEASURES[output], parameters).fetchall())
        if output == "lds":
            for name, figure in draw_predictions(connection, view.spec, step).items():
                numbers[name] = carried(figure_png(figure), "predicted against measured")
    return numbers


def _judged(store: Store) -> dg.AssetCheckResult:
    """A warning, not an error: the scores are stored with their flag, and every reader can leave them out."""
    with store.reading("influence", "reliability", "lds") as connection:
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


def _judge(context: dg.AssetExecutionContext, store: Store) -> None:
    """Evaluates `influence_is_reliable` on all that is stored."""
    found = _judged(store)
    context.log_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("influence"),
            check_name="influence_is_reliable",
            passed=found.passed,
            metadata=found.metadata,
            severity=found.severity,
        )
    )


influence_sweep = step_asset(stage_of("influence"), shown=_measures, at_end=_judge)
"""One sweep backwards from the last target step: influence of all earlier examples, and its reliability."""

counterfactual_retraining = step_asset(stage_of("retraining"), shown=_measures, at_end=_judge)
"""Retrains without random and without the most influential examples, and compares with what influence predicts."""


@dg.asset_check(
    asset="influence",
    description="No influence lies outside the regime in which it may be trusted: metasmooth training, within the horizon, "
    "confirmed by retraining where that was measured.",
)
def influence_is_reliable(store: StoreResource) -> dg.AssetCheckResult:
    """By hand; it is also made whenever influence is computed, or retrained to test it."""
    return _judged(store.open())
