"""Which retrainings and scores of influence there should be, and what each would be made from now."""

from mech_pipeline.attribution.retraining.removals import BASELINE, asked_removals
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.cells import Cell, combined_version, pending_cells, stored_versions
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.grid import probe_version
from mech_pipeline.pipeline.influence.wanted import target_steps
from mech_pipeline.spec.fingerprint import fingerprint

CODE_VERSION = "1"
LDS_VERSION = "2"


def retraining_step(run: FoundRun) -> int | None:
    """The step up to which is retrained: the last target of the run's influence; none if nothing is asked for."""
    steps = target_steps(run)
    return steps[-1] if steps and asked_removals(run.spec.influence) else None


def wanted(run: FoundRun, step: int) -> dict[Cell, str]:
    """Fingerprints of the retrainings up to a step: one per removal. Those of top examples rest on stored influence."""
    chosen, cells = run.spec.influence, dict[Cell, str]()
    mechanisms = [[n, KNOWN.mechanisms[n].version, probe_version(n, run.artifacts)] for n in chosen.mechanisms]
    common = [CODE_VERSION, run.training, run.checkpoint_version(step), chosen.horizon, mechanisms]
    scores = stored_versions(run.store, "influence", run.spec.run)
    for removal in asked_removals(chosen):
        made_from: list[object] = [removal.fraction]
        if removal.number is not None:
            assert chosen.retraining is not None, "somebody asked for removals"
            made_from += [removal.number, chosen.retraining.seed]
        elif removal.target is not None:
            version = scores.get(Cell("influence", run.spec.run, step, *removal.target))
            if version is None:
                continue
            made_from.append(version.data_version)
            if removal.matched:
                assert chosen.retraining is not None, "somebody asked for removals"
                made_from += ["matched", chosen.retraining.seed]
        cells[removal_cell(run, step, removal.name)] = fingerprint("retraining", *common, *made_from)
    return cells


def pending(run: FoundRun, step: int) -> list[Cell]:
    """The removals that must be retrained; one counts only together with the list of its examples."""
    cells = wanted(run, step)
    listed = {cell: expected for cell, expected in cells.items() if cell.item != BASELINE}
    return sorted({*pending_cells(run.store, cells), *pending_cells(run.store, listed, also=["removals"])})


def removal_cell(run: FoundRun, step: int, removal: str) -> Cell:
    return Cell("retrainings", run.spec.run, step, removal)


def wanted_lds(run: FoundRun, step: int) -> dict[Cell, str]:
    """Fingerprints of the scores at a step, from stored influence and stored retrainings: one per mechanism and method."""
    chosen = run.spec.influence
    names = [removal.name for removal in asked_removals(chosen)]
    if not names:
        return {}
    made = stored_versions(run.store, "retrainings", run.spec.run)
    removed = [Cell("retrainings", run.spec.run, step, name) for name in names]
    retrained = combined_version(made[cell] for cell in removed if cell in made)
    scores = stored_versions(run.store, "influence", run.spec.run)
    cells: dict[Cell, str] = {}
    for mechanism in chosen.mechanisms:
        for method in chosen.methods:
            cell = Cell("lds", run.spec.run, step, mechanism, method)
            if (score := scores.get(cell.of("influence"))) is not None:
                version = score.data_version
                cells[cell] = fingerprint("lds", LDS_VERSION, mechanism, method, version, names, retrained)
    return cells


def pending_lds(run: FoundRun, step: int) -> list[Cell]:
    """The scores that must be computed, as far as retrainings are there."""
    return pending_cells(run.store, wanted_lds(run, step))
