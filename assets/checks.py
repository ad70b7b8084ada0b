"""What is tried on a trained run, and whether stored numbers are numbers. Balances are checked where they are made: `attribution`.

Checks of a run are part of the Dagster run that trains or measures it; the job `check_run` makes them again for any run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mech_pipeline.assets.partitions import runs
from mech_pipeline.pipeline import soundness
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.store import Store

MEASURED = ("mechanism_values", "head_scores", "gradients")
_SHOWN = 20


def _finite_states(run: OpenRun) -> dg.AssetCheckResult:
    found = soundness.not_finite(run)
    metadata: dict[str, Any] = {
        "states read": found.read,
        "states with NaN": _listed(found.states),
        "updates with NaN": _listed(found.updates),
    }
    return dg.AssetCheckResult(passed=not found.states and not found.updates, metadata=metadata)


def _resumes(run: OpenRun) -> dg.AssetCheckResult:
    found = soundness.resume(run)
    if found is None:
        return dg.AssetCheckResult(passed=True, metadata={"tried": "nothing: the run keeps fewer than two states"})
    metadata: dict[str, Any] = {"from step": found.begin, "to step": found.end}
    return dg.AssetCheckResult(passed=found.same, metadata=metadata | {"reached": found.found, "kept": found.kept})


def _same_in_any_batch(run: OpenRun) -> dg.AssetCheckResult:
    found = soundness.batch_dependence(run)
    metadata = {"largest difference, relative": found, "allowed": soundness.BATCH_TOLERANCE}
    return dg.AssetCheckResult(passed=found <= soundness.BATCH_TOLERANCE, metadata=metadata)


def _finite_measurements(run: OpenRun) -> dg.AssetCheckResult:
    return _finite(run.store, MEASURED, run.spec.run)


@dataclass(frozen=True)
class RunCheck:
    """A check of one run.

    Attributes:
        asset: the asset that it belongs to and is made with.
        pool: what it computes on, if anything.
    """

    asset: str
    name: str
    description: str
    check: Callable[[OpenRun], dg.AssetCheckResult]
    pool: str | None = None


RUN_CHECKS = (
    RunCheck(
        "training_run",
        "numbers_are_finite",
        f"No NaN and no infinity in the weights and moments of up to {soundness.STATES} kept states, nor in any update's "
        "loss and gradient norm. A second for small models.",
        _finite_states,
        "gpu_train",
    ),
    RunCheck(
        "training_run",
        "resumes_bit_for_bit",
        "Training on from a kept state reaches the next one bit for bit: the shortest stretch is trained again, and takes "
        "as long. Ledger and influence rest on it.",
        _resumes,
        "gpu_train",
    ),
    RunCheck(
        "training_run",
        "same_in_any_batch",
        "The gradient of an example does not depend on which examples are computed with it: "
        f"{soundness.EXAMPLES} together and one by one, by component, to {soundness.BATCH_TOLERANCE:g} of the largest.",
        _same_in_any_batch,
        "gpu_train",
    ),
    RunCheck(
        "formation",
        "numbers_are_finite",
        "No NaN and no infinity among the stored values of the run's checkpoints: mechanisms, heads, gradients.",
        _finite_measurements,
    ),
)


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more if names else "none"


def _of_run(made: RunCheck) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=made.asset, name=made.name, description=made.description, partitions_def=runs, pool=made.pool)
    def check(context: dg.AssetCheckExecutionContext, store: StoreResource) -> dg.AssetCheckResult:
        return made.check(OpenRun(store.open(), store.run_spec(context.partition_key)))

    return check


def _of_all_runs(table: str) -> dg.AssetChecksDefinition:
    """By hand: one event for each of thousands of partitions would cost more than it tells."""

    @dg.asset_check(asset=table, name="numbers_are_finite", description="No value is NaN or infinite, in any run.")
    def check(store: StoreResource) -> dg.AssetCheckResult:
        return _finite(store.open(), [table], None)

    return check


def _finite(store: Store, tables: Sequence[str], run: str | None) -> dg.AssetCheckResult:
    found = {table: soundness.cells_not_finite(store, table, run) for table in tables}
    wrong = [f"{table}: {name}|{step}" for table, cells in found.items() for name, step in cells]
    return dg.AssetCheckResult(passed=not wrong, metadata={"tables": ", ".join(tables), "not finite": _listed(wrong)})


@dg.op(pool="gpu_train")
def try_run(context: dg.OpExecutionContext, store: StoreResource) -> None:
    """Makes every check of a run and records it where it belongs; checks alone cannot be launched for one partition."""
    run = context.partition_key
    opened = OpenRun(store.open(), store.run_spec(run))
    for made in RUN_CHECKS:
        result = made.check(opened)
        context.log.info(f"{made.name} of {made.asset} {run}: {'passed' if result.passed else 'FAILED'}")
        context.log_event(  # its annotation leaves out what it accepts
            dg.AssetCheckEvaluation(  # type: ignore[arg-type]
                asset_key=dg.AssetKey(made.asset),
                check_name=made.name,
                passed=result.passed,
                metadata=result.metadata,
                partition=run,
            )
        )


checks = [*map(_of_run, RUN_CHECKS), *map(_of_all_runs, (*MEASURED, "influence"))]
