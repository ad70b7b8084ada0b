"""What an arm does to the data, in words."""

from mech_pipeline.reports.wording import number
from mech_pipeline.spec.arm import Arm
from mech_pipeline.spec.choice import Recipe

_DONE = {"delete": "leaves out", "duplicate": "shows twice", "delay": "delays", "weight": "weighs"} | {
    "advance": "shows earlier",
    "reorder": "shows in another order",
    "replace": "replaces",
}
_NAMED = {"before_target": "before the target", "after_target": "after the target"}


def done_by(arm: Arm, recipe: Recipe | None) -> str:
    """All that an arm does: to the data, and to the model."""
    held = [each.words for each in arm.intervene]
    return "; ".join(held if held and recipe is None else [done_to_data(recipe), *held])


def done_to_data(recipe: Recipe | None) -> str:
    """One clause.

    >>> done_to_data(Recipe(by="influence", share=0.05, runs=("e.baseline.s0",)))
    'leaves out the top 5 % by influence'
    >>> done_to_data(Recipe(by="random", count=7, do="delay", until=300, runs=("e.baseline.s0",)))
    'delays 7 by chance, until 300'
    >>> done_to_data(None)
    'chooses nothing'
    """
    if recipe is None:
        return "chooses nothing"
    verb = _DONE.get(recipe.do, recipe.do)
    how = f", × {number(recipe.weight)}" if recipe.do == "weight" else ""
    how += f", by {recipe.earlier:,} updates" if recipe.earlier is not None else ""
    how += f", {recipe.to} of the window" if recipe.to is not None else ""
    if recipe.like is not None:
        return f"{verb} as many as {recipe.like}, alike in {', '.join(recipe.alike)}{how}{_when(recipe)}"
    size = f"{100 * recipe.share:g} %" if recipe.share is not None else f"{recipe.count}"
    which = f"{size} by chance" if recipe.by == "random" else f"the {recipe.end} {size} by {recipe.by}"
    kinds = f" of {', '.join(recipe.kinds)}" if recipe.kinds else ""
    return f"{verb} {which}{kinds}{how}{_when(recipe)}"


def _when(recipe: Recipe) -> str:
    if recipe.until is not None:
        return f", until {recipe.until:,}"
    if recipe.window is None:
        return ""
    where = _NAMED.get(str(recipe.window)) or f"in updates {recipe.window[0]} to {recipe.window[1]}"
    return f", {'not ' if recipe.outside else ''}{where}"
