"""Which arms of an experiment are compared with which, and which are doses of one treatment: as its file says.

An arm that chooses is compared with the arm that it chooses by, and an arm with each one that is matched to it; one that
chooses nothing (a control, a head that is held) with the arm that most others choose by.
"""

from collections import Counter
from dataclasses import dataclass

from mech_pipeline.spec.choice import Recipe
from mech_pipeline.spec.choosing import recipe_of
from mech_pipeline.spec.experiment import Experiment


@dataclass(frozen=True)
class Pair:
    """An arm, and what it is held against."""

    arm: str
    reference: str


@dataclass(frozen=True)
class Doses:
    """Arms that differ in how many examples they treat, and in nothing else.

    Attributes:
        arms: rising; the first is the one that treats none.
        shares: of each, or counts of examples.
        what: in words, such as `delete by influence`.
    """

    arms: tuple[str, ...]
    shares: tuple[float, ...]
    what: str


def recipes(experiment: Experiment) -> dict[str, Recipe]:
    """What each arm chooses, in the run of its first seed; arms that choose nothing are left out."""
    found = {name: recipe_of(experiment, name, experiment.seeds_of(name)[0]) for name in experiment.arms}
    return {name: recipe for name, recipe in found.items() if recipe is not None}


def pairs(experiment: Experiment) -> list[Pair]:
    """Every comparison of an experiment: with what is chosen by, then with what is matched. None if no arm treats anything."""
    chosen = recipes(experiment)
    common = _untreated(experiment, chosen)
    if common is None:
        return []
    against = {name: chosen[name].of if name in chosen else common for name in experiment.arms}
    found = [Pair(arm, reference) for arm, reference in against.items() if arm != reference]
    return found + [Pair(recipe.like, name) for name, recipe in chosen.items() if recipe.like is not None]


def _untreated(experiment: Experiment, chosen: dict[str, Recipe]) -> str | None:
    """What arms that choose nothing are held against: the arm that most others choose by, or the first that holds nothing."""
    if chosen:
        ((common, _),) = Counter(recipe.of for recipe in chosen.values()).most_common(1)
        return common
    free = [name for name, arm in experiment.arms.items() if not arm.intervene]
    return free[0] if free and len(free) < len(experiment.arms) else None


def doses(experiment: Experiment) -> list[Doses]:
    """Treatments with at least two shares (or counts), none of them twice."""
    families: dict[str, dict[str, Recipe]] = {}
    for name, recipe in recipes(experiment).items():
        if recipe.like is None and not _changes_more(experiment, name):
            kind = recipe.model_copy(update={"share": None, "count": None, "runs": ()})
            families.setdefault(f"{recipe.share is None} {kind.model_dump_json()}", {})[name] = recipe
    return [found for members in families.values() if (found := _in_order(members)) is not None]


def _changes_more(experiment: Experiment, name: str) -> bool:
    """Whether an arm changes something else beside what it chooses."""
    said = experiment.arms[name].model_dump(exclude={"seeds", "choose"})
    return any(said.values())


def _in_order(members: dict[str, Recipe]) -> Doses | None:
    sizes = {name: float(recipe.count or recipe.share or 0.0) for name, recipe in members.items()}
    if len(set(sizes.values())) < max(2, len(sizes)):
        return None
    order = sorted(sizes, key=lambda name: sizes[name])
    first = members[order[0]]
    where = "" if first.window is None else f", {'outside of ' if first.outside else ''}window {first.window}"
    return Doses((first.of, *order), (0.0, *(sizes[name] for name in order)), f"{first.do} by {first.by}{where}")
