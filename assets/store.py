"""Group `store`: finished runs in few files, and the generated DuckDB file."""

import dagster as dg

from mech_pipeline.assets.events import emitter
from mech_pipeline.assets.factory import described
from mech_pipeline.assets.formation import formation
from mech_pipeline.pipeline.stage_costs import measured
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.care.maintain import compact_runs
from mech_pipeline.store.reading.warehouse import write_warehouse


@dg.asset(**described("compaction"))
def compaction(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """What was compacted, in words."""
    opened, run = store.open(), context.partition_key
    with measured(opened, "compaction", [store.run_spec(run)]) as work:
        done = compact_runs(opened, [run], emit=emitter(context))
        work.cells[run] = len(done)
    return dg.MaterializeResult(metadata={"tables compacted": len(done), "what": "; ".join(done) or "nothing to do"})


@dg.asset(group_name="store", kinds={"duckdb"}, deps=[formation], code_version="1")
def warehouse(store: StoreResource) -> dg.MaterializeResult:
    """`warehouse.duckdb`: views only, over one cut through all tables; opens in the DuckDB command line. A second."""
    path = write_warehouse(store.open().root, store.local_folder)
    return dg.MaterializeResult(metadata={"path": dg.MetadataValue.path(path)})
