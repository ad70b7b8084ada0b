"""LDS partitions: what the retrainings of a run say about its influence, per mechanism and estimator."""

from typing import Any

import numpy as np
import polars as pl

from mech_pipeline.attribution.retraining.effects import lds_measures, removal_effects
from mech_pipeline.attribution.retraining.lds import Measure, matched_measures, random_measures, top_measures
from mech_pipeline.attribution.retraining.removals import BASELINE, asked_removals
from mech_pipeline.pipeline.cells import Block, write
from mech_pipeline.pipeline.retraining.wanted import LDS_VERSION, pending_lds, wanted_lds
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.store import Store


def compute_lds(run: OpenRun, step: int) -> int:
    """Computes what is pending at a step from what is stored; returns the number of cells. Seconds."""
    cells, todo = wanted_lds(run, step), pending_lds(run, step)
    for cell in todo:
        assert cell.item is not None, "a score is of a mechanism"
        assert cell.method is not None, "and of an estimator"
        found = _measures(run, step, cell.item, cell.method)
        columns: dict[str, list[Any]] = {"fraction": [fraction for fraction, _ in found]}
        for name in ("metric", "value", "lower", "upper", "n"):
            columns[name] = [getattr(measure, name) for _, measure in found]
        write(run.store, [Block(cell, columns, cells[cell])], LDS_VERSION)
    return len(todo)


def measured_lds(store: Store, run: str, step: int) -> list[dict[str, Any]]:
    """The linear datamodeling scores of a run's influence at a step: mechanism, method, fraction, value, lower, upper, n."""
    with store.reading("lds") as connection:
        return lds_measures(connection, run, step).filter(metric="lds").drop("metric").to_dicts()


def _measures(run: OpenRun, step: int, mechanism: str, method: str) -> list[tuple[float, Measure]]:
    """(fraction, measure) of one estimator on one mechanism."""
    chosen = run.spec.influence
    removals = {removal.name: removal for removal in asked_removals(chosen) if removal.name != BASELINE}
    with run.store.reading("influence", "removals", "retrainings") as connection:
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
        chosen_by = {n: r for n, r in removals.items() if r.target == (mechanism, method) and r.fraction == fraction}
        for row in effects.filter(pl.col("removal").is_in(list(chosen_by))).iter_rows(named=True):
            if row["change"] is None:
                name = "matched_diverged" if chosen_by[row["removal"]].matched else "top_diverged"
                found.append((fraction, Measure(name, 1.0, None, None, 1)))
                continue
            if chosen_by[row["removal"]].matched:
                found += [(fraction, measure) for measure in matched_measures(row["change"], row["predicted"])]
                continue
            measures = top_measures(row["change"], row["predicted"], random.get(fraction, np.array([])))
            found += [(fraction, measure) for measure in measures]
    return found
