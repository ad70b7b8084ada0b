"""What an experiment's comparisons would be made from now. Light: `mech status` asks it, and loads no statistics for that."""

from collections.abc import Iterator
from dataclasses import dataclass

from mech_pipeline.causal.arms import doses, pairs
from mech_pipeline.pipeline.cells import Cell, Version, combined_version, stored_versions
from mech_pipeline.pipeline.choice.wanted import target_of
from mech_pipeline.pipeline.stage import Cells, View
from mech_pipeline.pipeline.stops import stopped_at
from mech_pipeline.spec.choice import Recipe
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec, run_id
from mech_pipeline.store.store import Store

CODE_VERSION = "1"
PREDICTABLE = ("delete", "duplicate", "weight", "delay")
"""What is done by weights alone, at updates that see the example anyway: influence speaks of nothing else."""


@dataclass(frozen=True)
class Target:
    """Where a run's treatment is to be predicted.

    Attributes:
        baseline: the run of its seed that it chose by.
        step: target of that run's influence.
    """

    spec: RunSpec
    baseline: str
    step: int
    mechanism: str
    method: str

    @property
    def named(self) -> list[str | int]:
        """What it is told by in a fingerprint."""
        return [self.spec.run, self.step, self.mechanism, self.method]

    @property
    def measures(self) -> tuple[str, str]:
        """(mechanism, subject) of its row in `causal_measures`."""
        return self.mechanism, f"predictions by {self.method}"


def wanted(view: View) -> Cells:
    """The four tables of the experiment; what holds no row is not wanted."""
    experiment, store = view.whole, view.store
    if not pairs(experiment) or not experiment.formation:
        return {}
    name, specs = experiment.experiment, experiment.runs()
    formed = [combined_version(stored_versions(store, "formation", spec.run).values()) for spec in specs]
    chosen = [
        combined_version(stored_versions(store, "choices", s.run).values()) for s in specs if s.choice is not None
    ]
    events = [event.signal for event in experiment.formation]
    compared = fingerprint("comparison", CODE_VERSION, experiment.arms, experiment.seeds, events, formed, chosen)
    cells = {Cell("arms", name): compared, Cell("comparisons", name): compared}
    asked = list(_asked(store, experiment))
    versions = [[*target.named, *found] for target in asked if (found := _versions(store, target))]
    predicted = fingerprint("predictions", CODE_VERSION, versions, formed)
    short = [target.named for target in asked if _stopped_before(store, target)]
    if versions:
        cells[Cell("predictions", name)] = predicted
    if versions or short or doses(experiment):
        read = [compared, predicted, *([short] if short else [])]
        cells[Cell("causal_measures", name)] = fingerprint("causal measures", CODE_VERSION, *read)
    return cells


def targets(store: Store, experiment: Experiment) -> list[Target]:
    """Every run that treats examples, and mechanism of influence, for which influence and both values are stored."""
    return [target for target in _asked(store, experiment) if _versions(store, target)]


def stopped_short(store: Store, experiment: Experiment) -> list[Target]:
    """Targets of runs that stopped by their rule before: what their treatment did there was not measured."""
    return [target for target in _asked(store, experiment) if _stopped_before(store, target)]


def _asked(store: Store, experiment: Experiment) -> Iterator[Target]:
    for spec in experiment.runs():
        if spec.choice is not None and spec.choice.do in PREDICTABLE:
            yield from _targets(store, experiment, spec, spec.choice)


def _stopped_before(store: Store, target: Target) -> bool:
    end = stopped_at(store, target.spec)
    return end is not None and end < target.step


def _targets(store: Store, experiment: Experiment, spec: RunSpec, recipe: Recipe) -> Iterator[Target]:
    baseline = run_id(experiment.experiment, recipe.of, spec.seed)
    if spec.seed not in experiment.seeds_of(recipe.of):
        return
    step = target_of(store, recipe, baseline, spec)
    if step is None:
        return
    methods = experiment.influence.methods
    method = recipe.method if recipe.method in methods else methods[0]
    for mechanism in experiment.influence.mechanisms:
        yield Target(spec, baseline, step, mechanism, method)


def _versions(store: Store, target: Target) -> tuple[str, ...]:
    """Of all that a prediction reads; none: something is not stored."""
    run, baseline = target.spec.run, target.baseline
    influence = Cell("influence", baseline, target.step, target.mechanism, target.method)
    read: list[Version | None] = [
        stored_versions(store, "choices", run).get(Cell("choices", run)),
        stored_versions(store, "influence", baseline).get(influence),
        *(_value(store, each, target.step, target.mechanism) for each in (run, baseline)),
    ]
    versions = tuple(each.data_version for each in read if each is not None)
    return versions if len(versions) == len(read) else ()


def _value(store: Store, run: str, step: int, mechanism: str) -> Version | None:
    return stored_versions(store, "mechanism_values", run).get(Cell("mechanism_values", run, step, mechanism))
