"""Group `formation`: when mechanisms form."""

import dagster as dg

from mech_pipeline.assets.analysis import checkpoint_analysis
from mech_pipeline.assets.events import stored_in
from mech_pipeline.assets.partitions import by_run, runs
from mech_pipeline.assets.previews import rows_of_run
from mech_pipeline.pipeline.analysis import formation as stage
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.currency import combined_version, stored_versions


@dg.asset(
    group_name="formation",
    partitions_def=runs,
    kinds={"deltalake"},
    code_version=stage.CODE_VERSION,
    deps=[
        dg.AssetDep(key, partition_mapping=by_run)
        for key in sorted(checkpoint_analysis.keys)
        if key.to_user_string() != "gradients"
    ],
)
def formation(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """When each watched value crossed its threshold and stayed; censored if it never did. Some rows, a second."""
    spec, opened = store.run_spec(context.partition_key), store.open()
    stage.compute_formation(opened, spec)
    found = stage.stored_formation(opened, spec)
    shown = {f"formation step of {signal}": "censored" if step is None else step for signal, step in found.items()}
    version = combined_version(stored_versions(opened, "formation", spec.run).values())
    metadata = {**shown, **stored_in(opened, "formation"), **rows_of_run(opened, "formation", spec.run)}
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))
