"""The choice of a run: what it is made from now, and why it cannot be made."""

from collections.abc import Iterator

from mech_pipeline.pipeline.analysis.formation import stored_formation
from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.pipeline.checkpoints import artifact_versions
from mech_pipeline.pipeline.stage import Cells, View
from mech_pipeline.pipeline.tokens.wanted import artifact_cell
from mech_pipeline.spec.choice import Recipe
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

CODE_VERSION = "1"


def target_of(store: Store, recipe: Recipe, run: str, chooser: RunSpec) -> int | None:
    """The step that a recipe looks at in a run; none if that is where the run formed, and it did not.

    Args:
        chooser: the run that chooses; all runs of an experiment have its formation events.
    """
    if isinstance(recipe.at, int):
        return recipe.at
    return stored_formation(store, run).get(chooser.formation[0].signal)


def refused(view: View) -> str | None:
    """Why nothing can be chosen; none: it can."""
    recipe = view.spec.choice
    for part in recipe.parts() if recipe is not None else ():
        for run in part.runs:
            if target_of(view.store, part, run, view.spec) is None:
                signal = view.spec.formation[0].signal
                return (
                    f"chooses examples by what run {run} did before {signal} formed, which did not form in it (it is "
                    "censored); say `at: STEP` instead, or train it longer"
                )
    return None


def wanted(view: View) -> Cells:
    """The fingerprint of what the run chooses, from the versions of all that decides it."""
    recipe, store = view.spec.choice, view.store
    if recipe is None or refused(view) is not None:
        return {}
    pool = artifact_versions(store, view.spec.run)["pool"]
    read = [version for part in recipe.parts() for version in _read(store, part, view.spec)]
    made_from = fingerprint("choice", CODE_VERSION, recipe, pool, read)
    return {Cell("choices", view.spec.run): made_from, artifact_cell(view.spec.run, recipe.artifact): made_from}


def _read(store: Store, recipe: Recipe, chooser: RunSpec) -> Iterator[str]:
    """Versions of what a recipe reads of other runs, and the steps at which."""
    for run in recipe.runs:
        step = target_of(store, recipe, run, chooser)
        assert step is not None, "refused otherwise"
        yield str(step)
        if recipe.by == "influence":
            cell = Cell("influence", run, step, recipe.mechanism, recipe.method)
            yield _version(store, cell)
        if recipe.by == "ledger":
            stored = stored_versions(store, "ledger", run)
            cells = sorted(cell for cell in stored if cell.item == recipe.mechanism and (cell.step or 0) <= step)
            yield fingerprint(*(stored[cell].data_version for cell in cells))
        if recipe.by in ("loss", "sql") or (recipe.matches and "loss" in recipe.alike):
            yield _version(store, Cell("checkpoints", run, step))


def _version(store: Store, cell: Cell) -> str:
    found = stored_versions(store, cell.table, cell.run).get(cell)
    return found.data_version if found is not None else "none"
