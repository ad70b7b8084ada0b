"""LDS partitions: what the retrainings of a run say about its influence, per mechanism and estimator."""

from typing import Any

import numpy as np
import polars as pl

from mech_pipeline.attribution.retraining.effects import lds_measures, removal_effects
from mech_pipeline.attribution.retraining.lds import Measure, random_measures, top_measures
from mech_pipeline.attribution.retraining.removals import BASELINE, asked_removals
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.pipeline.influence.rows import influence_item
from mech_pipeline.pipeline.retraining import retraining
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.currency import Cell, combined_version, outdated, stored_versions
from mech_pipeline.store.reading import connect
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

CODE_VERSION = "2"


def wanted(run: OpenRun, step: int) -> dict[Cell, str]:
    """Fingerprints of the scores at a step, from stored influence and stored retrainings: one per mechanism and method."""
    chosen = run.spec.influence
    names = [removal.name for removal in asked_removals(chosen)]
    if not names:
        return {}
    made = stored_versions(run.store, "retrainings", run.spec.run)
    retrained = combined_version(made[step, name] for name in names if (step, name) in made)
    scores = stored_versions(run.store, "influence", run.spec.run)
    cells: dict[Cell, str] = {}
    for mechanism in chosen.mechanisms:
        for method in chosen.methods:
            cell = step, influence_item(mechanism, method)
            if cell in scores:
                version = scores[cell].data_version
                cells[cell] = fingerprint("lds", CODE_VERSION, mechanism, method, version, names, retrained)
    return cells


def pending(run: OpenRun, step: int) -> list[Cell]:
    """The scores that must be computed, as far as retrainings are there."""
    return outdated(stored_versions(run.store, "lds", run.spec.run), wanted(run, step))


def pending_cells(run: OpenRun) -> dict[Cell, str]:
    """Everything of the stage that is not current, retrainings and what is made of them, with their fingerprints."""
    step = retraining.retraining_step(run)
    if step is None:
        return {}
    removed, scored = retraining.wanted(run, step), wanted(run, step)
    return {(step, f"retrainings {cell[1]}"): removed[cell] for cell in retraining.pending(run, step)} | {
        (step, f"lds {cell[1]}"): scored[cell] for cell in pending(run, step)
    }


def compute_lds(run: OpenRun, step: int) -> int:
    """Computes what is pending at a step from what is stored; returns the number of cells. Seconds."""
    cells, todo = wanted(run, step), {item for _, item in pending(run, step)}
    for mechanism in run.spec.influence.mechanisms:
        for method in run.spec.influence.methods:
            item = influence_item(mechanism, method)
            if item in todo:
                _write(run, step, mechanism, method, _measures(run, step, mechanism, method), cells[step, item])
    return len(todo)


def measured_lds(store: Store, run: str, step: int) -> list[dict[str, Any]]:
    """The linear datamodeling scores of a run's influence at a step: mechanism, method, fraction, value, lower, upper, n."""
    with connect(store.root, ["lds"]) as connection:
        return lds_measures(connection, run, step).filter(metric="lds").drop("metric").to_dicts()


def _measures(run: OpenRun, step: int, mechanism: str, method: str) -> list[tuple[float, Measure]]:
    """(fraction, measure) of one estimator on one mechanism."""
    chosen = run.spec.influence
    removals = {removal.name: removal for removal in asked_removals(chosen) if removal.name != BASELINE}
    with connect(run.store.root, ["influence", "removals", "retrainings"]) as connection:
        effects = removal_effects(connection, run.spec.run, step, mechanism, method, list(removals))
    effects = effects.with_columns(
        number=pl.col("removal").replace_strict({n: r.number for n, r in removals.items()}, return_dtype=pl.Int64)
    )
    asked = chosen.retraining
    assert asked is not None, "somebody asked for removals"
    found: list[tuple[float, Measure]] = []
    random: dict[float, np.ndarray] = {}
    for fraction in asked.fractions:
        drawn = effects.filter(pl.col("number").is_not_null(), fraction=fraction)
        there = drawn.drop_nulls("change")
        random[fraction] = there["change"].to_numpy()
        measures = random_measures(there["predicted"].to_numpy(), random[fraction], asked.seed)
        diverged = Measure("diverged", float(drawn.height - there.height), None, None, drawn.height)
        found += [(fraction, measure) for measure in [*measures, diverged]]
    for fraction in asked.top:
        name = next(n for n, r in removals.items() if r.target == (mechanism, method) and r.fraction == fraction)
        for row in effects.filter(removal=name).iter_rows(named=True):
            if row["change"] is None:
                found.append((fraction, Measure("top_diverged", 1.0, None, None, 1)))
                continue
            measures = top_measures(row["change"], row["predicted"], random.get(fraction, np.array([])))
            found += [(fraction, measure) for measure in measures]
    return found


def _write(
    run: OpenRun, step: int, mechanism: str, method: str, found: list[tuple[float, Measure]], made_from: str
) -> None:
    key = {"run": run.spec.run, "step": step, "mechanism": mechanism, "method": method}
    columns: dict[str, list[Any]] = {name: [value] * len(found) for name, value in key.items()}
    columns["fraction"] = [fraction for fraction, _ in found]
    for name in ("metric", "value", "lower", "upper", "n"):
        columns[name] = [getattr(measure, name) for _, measure in found]
    version = content_version(TABLES["lds"], columns)
    run.store.write(
        "lds",
        columns | provenance_columns(len(found), made_from, version),
        replace={name: [value] for name, value in key.items()},
        code_version=CODE_VERSION,
    )
