"""Which cells of influence there should be, and what each would be made from now."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mech_pipeline.attribution.influence.horizon import first_update
from mech_pipeline.attribution.per_example.names_version import names_version
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.analysis.formation import influence_step
from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.grid import probe_version
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.tables.all import ADJOINT

CODE_VERSION = "3"
ESTIMATES_VERSION = "1"
WEIGHTED_VERSION = "weight of every example"
"""Of rows in runs whose examples have weights."""


def target_steps(run: FoundRun) -> list[int]:
    """The steps at which the run's influence is asked for, as far as they are known and kept; sorted."""
    chosen = run.spec.influence
    if not chosen.mechanisms:
        return []
    if chosen.at == "formation":
        step = influence_step(run.store, run.spec)
        return [step] if step else []
    wanted = run.planned if chosen.at == "checkpoints" else chosen.at
    return sorted(step for step in wanted if step > 0 and step in run.checkpoints)


def planned_targets(spec: RunSpec) -> list[int]:
    """The target steps that the spec of a run tells; where it formed is known later."""
    at = spec.influence.at
    if at == "formation":
        return []
    return sorted(step for step in (spec.checkpoint_steps() if at == "checkpoints" else at) if step > 0)


def wanted(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the influence cells at target steps: one per mechanism and method."""
    cells: dict[Cell, str] = {}
    chosen = run.spec.influence
    for step in steps:
        state = run.checkpoint_version(step)
        for name in chosen.mechanisms:
            exact = Cell("influence", run.spec.run, step, name, ADJOINT)
            common = [name, KNOWN.mechanisms[name].version, state, probe_version(name, run.artifacts), run.training]
            if run.spec.weighted:
                common.append(WEIGHTED_VERSION)
            for method in chosen.methods:
                if method == ADJOINT:
                    settings = [chosen.metasmoothness_steps, chosen.metasmoothness_size, chosen.horizon]
                    settings += [chosen.components, chosen.tokens]
                    names = names_version(run.spec.model) if chosen.components else []
                    cells[exact] = fingerprint("influence", CODE_VERSION, *common, settings, *names)
                else:
                    cells[replace(exact, method=method)] = _estimate_fingerprint(run, step, method, common)
    return cells


def pending(run: FoundRun, steps: Iterable[int]) -> list[Cell]:
    """Influence cells that must be computed; a cell counts only together with its reliability."""
    return pending_cells(run.store, wanted(run, steps), also=["reliability"])


def _estimate_fingerprint(run: FoundRun, step: int, method: str, common: Sequence[str]) -> str:
    """What the scores of a cheap method are made from."""
    settings: list[object] = [run.spec.influence.horizon]
    if method == "sketch":
        settings.append(run.spec.influence.sketch_size)
    if method == "adjoint_mean":
        settings.append(run.spec.influence.adjoint_mean.model_dump(mode="json"))
    if method.startswith("gradient_dot") or method == "sketch":
        settings.append([run.checkpoints[s].data_version for s in checkpoints_before(run, step)])
    return fingerprint("influence", method, ESTIMATES_VERSION, *common, settings)


def checkpoints_before(run: FoundRun, step: int) -> list[int]:
    """The planned states up to the target, from the horizon on; the target is the last."""
    first = first_update(step, run.spec.influence.horizon)
    planned = sorted({*(s for s in run.planned if s in run.checkpoints and s <= step), step})
    return [s for i, s in enumerate(planned) if s >= first or (i + 1 < len(planned) and planned[i + 1] > first)]
