"""Group `causes`: the examples that an arm treats otherwise, and of which results of other runs they were chosen.

Dagster cannot draw that edge: influence comes from training, training from the choice, and a graph of assets has no way to
say that it is another run's. So every partition of `choices` names what it was chosen by, with a link and its data version.
"""

from collections.abc import Iterator
from urllib.parse import quote

import dagster as dg

from mech_pipeline.assets.events import emitter
from mech_pipeline.assets.factory import described, stored_result
from mech_pipeline.assets.partitions import partition
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Cell, partition_version, stored_versions
from mech_pipeline.pipeline.choice.wanted import target_of
from mech_pipeline.pipeline.stage import Told, View
from mech_pipeline.pipeline.stages import output_of, stage_of
from mech_pipeline.resources.store import StoreResource
from mech_pipeline.spec.choice import ACCOUNTS


@dg.asset(**described("choices"))
def choices(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Chooses, and says by what."""
    view, stage = View(store.open(), (store.run_spec(context.partition_key),)), stage_of("choice")
    if (lack := stage.lacks(view)) is not None:
        raise MechError(f"choice {lack}", "train the run that it chooses by")
    stage.work(view, (), Told(emit=emitter(context)))
    lines = list(chosen_by(view))
    shown = {"chosen by": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))} if lines else {}
    return stored_result(view, output_of("choices"), **shown)


def chosen_by(view: View) -> Iterator[str]:
    """A line of Markdown for each result of another run that decides the choice: influence, ledger, formation."""
    recipe = view.spec.choice
    for part in recipe.parts() if recipe is not None else ():
        for run in part.runs:
            step = target_of(view.store, part, run, view.spec)
            if step is None:
                continue
            if part.by in ACCOUNTS:
                version = _version(view, part.by, run, step, str(part.mechanism), part.method)
                where = f"/assets/{part.by}?view=partitions&partition={quote(str(partition(run, step)))}"
                yield f"[{part.by} of {run} on {part.mechanism} up to step {step:,}]({where}), data version {version[:12]}"
            elif part.at == "formation":
                where = f"/assets/formation?view=partitions&partition={quote(run)}"
                yield f"[formation of {run}]({where}), step {step:,}"


def _version(view: View, table: str, run: str, step: int, mechanism: str, method: str) -> str:
    """Of influence, the very cell; of a ledger, which is many, that of its last window."""
    stored = stored_versions(view.store, table, run)
    if table == "influence":
        found = stored.get(Cell(table, run, step, mechanism, method))
        return found.data_version if found is not None else "none"
    return partition_version(stored, step) or "none"
