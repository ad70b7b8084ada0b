"""Group `formation`: when mechanisms form."""

from collections.abc import Sequence

import dagster as dg

from mech_pipeline.assets.events import emitter
from mech_pipeline.assets.factory import described, stored_result
from mech_pipeline.assets.pictures import curves_of
from mech_pipeline.assets.previews import readable
from mech_pipeline.assets.standing import tell_standing
from mech_pipeline.pipeline.analysis.formation import stored_formation
from mech_pipeline.pipeline.stage import Told, View
from mech_pipeline.pipeline.stages import output_of, stage_of
from mech_pipeline.reports.formation.queries import signal_curves
from mech_pipeline.reports.formation.sparkline import formation_lines
from mech_pipeline.reports.wording import signal_name, signal_unit
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.store.store import Store


@dg.asset(**described("formation"))
def formation(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """The events, and their steps as numbers that the UI shows."""
    view, emit = View(store.open(), (store.run_spec(context.partition_key),)), emitter(context)
    stage_of("formation").work(view, (), Told(emit=emit))
    for line in _lines(view.store, view.spec.run):
        emit(line)
    found = stored_formation(view.store, view.spec.run)
    shown: dict[str, str | float] = {
        f"formation step of {signal_name(signal)} (updates)": "censored" if step is None else step
        for signal, step in found.items()
    }
    shown |= _last_values(view.store, view.spec.run, list(found))
    tell_standing(context, view.store, view.spec)
    return stored_result(view, output_of("formation"), **curves_of(view.spec.experiment), **shown)


def _lines(store: Store, run: str) -> list[str]:
    """The curves in words, for whoever watches `mech run`."""
    with store.reading("runs", "mechanism_values", "head_scores", "formation", of=[run]) as connection:
        return list(formation_lines(connection, run))


def _last_values(store: Store, run: str, signals: Sequence[str]) -> dict[str, float]:
    """What each watched value was at the end, which the UI plots run by run."""
    with store.reading("runs", "mechanism_values", "head_scores", of=[run]) as connection:
        curves = {signal: signal_curves(connection, [run], signal) for signal in signals}
    return {
        f"{signal_name(signal)} at the end ({signal_unit(signal)})": readable(curve["value"][-1])
        for signal, curve in curves.items()
        if not curve.is_empty()
    }
