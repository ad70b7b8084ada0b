"""Group `formation`: when mechanisms form."""

import dagster as dg

from mech_pipeline.assets.events import emitter
from mech_pipeline.assets.factory import described, stored_result
from mech_pipeline.assets.pictures import curves_of
from mech_pipeline.assets.standing import tell_standing
from mech_pipeline.pipeline.analysis.formation import stored_formation
from mech_pipeline.pipeline.stage import Told, View
from mech_pipeline.pipeline.stages import output_of, stage_of
from mech_pipeline.resources.store import StoreResource


@dg.asset(**described("formation"))
def formation(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """The events, and their steps as numbers that the UI shows."""
    view = View(store.open(), (store.run_spec(context.partition_key),))
    stage_of("formation").work(view, (), Told(emit=emitter(context)))
    found = stored_formation(view.store, view.spec)
    shown = {f"formation step of {signal}": "censored" if step is None else step for signal, step in found.items()}
    tell_standing(context, view.store, view.spec)
    return stored_result(view, output_of("formation"), **curves_of(view.spec.experiment), **shown)
