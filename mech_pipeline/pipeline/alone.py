"""All stages of some runs one after another in this process: what `mech run` does, without Dagster and without workers."""

from collections.abc import Container, Iterable, Mapping

from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.stage import SILENT, Scope, Told, View
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def compute_all(
    store: Store,
    specs: Iterable[RunSpec],
    corpora: Mapping[str, str],
    experiment: Experiment | None = None,
    told: Told = SILENT,
    without: Container[str] = (),
) -> list[tuple[str, str]]:
    """Computes everything that is not current; returns the (stage, run) that worked, in their order.

    Args:
        corpora: SHA-256 of each run's corpus.
        experiment: whose runs these are; none: without the stages of whole experiments.
        without: names of stages that are left alone, and with them what waits for them.

    Raises:
        MechError: of the first stage that failed.
    """
    specs = tuple(specs)
    plan, done = Plan(store, specs, corpora, experiment), list[tuple[str, str]]()
    plan.look()
    of_run = {spec.run: View(store, (spec,), corpora) for spec in specs}
    whole = {} if experiment is None else {experiment.experiment: View(store, specs, corpora, experiment)}
    stages = [stage for stage in STAGES if stage.name not in without]
    while ready := [(stage, name) for stage in stages for name in (of_run | whole) if stage.name in plan.ready(name)]:
        stage, name = max(ready, key=lambda each: each[0].priority)
        view = of_run[name] if stage.scope != Scope.EXPERIMENT else whole[name]
        fresh = View(store, view.specs, corpora, view.experiment)
        stage.work(fresh, steps_of(plan.ready(name)[stage.name]), told)
        plan.ended(stage.name, name)
        plan.look(name)
        done.append((stage.name, name))
    return done
