"""What the UI says of a run as a whole, on its partition of `training_run`, as long as stages add to it.

An observation says it, because the run was trained long before its ledger is there: the UI shows the values of a partition's
newest observation beside those of its materialization.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from mech_pipeline.assets.events import Context
from mech_pipeline.assets.pictures import curves_of
from mech_pipeline.pipeline.standing import standing, standings
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

LABEL = "run"


def standing_of(store: Store, spec: RunSpec) -> dict[str, Any]:
    """How far a run is, and its curves beside those of the experiment's other runs, as metadata."""
    return {LABEL: standing(store, spec), **curves_of(spec.experiment)}


def tell_standing(context: Context, store: Store, spec: RunSpec) -> None:
    """Says how far a run is now."""
    context.log_event(
        dg.AssetObservation(dg.AssetKey("training_run"), partition=spec.run, metadata=standing_of(store, spec))
    )


def table_of(store: Store, specs: Sequence[RunSpec]) -> dict[str, Any]:
    """How far each run of an experiment is, as metadata."""
    rows = [dg.TableRecord({"run": run, "has": has}) for run, has in standings(store, specs).items()]
    return {"runs": dg.MetadataValue.table(rows)}
