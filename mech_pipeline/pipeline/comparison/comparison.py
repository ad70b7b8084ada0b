"""Rows of `arms`, `comparisons`, `predictions` and `causal_measures` of an experiment."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mech_pipeline.causal.arms import doses, pairs
from mech_pipeline.causal.comparing import LEVEL, Comparison, compare
from mech_pipeline.causal.dose import trend
from mech_pipeline.causal.predicted import Measure, calibration
from mech_pipeline.causal.survival import Formed, Median, median
from mech_pipeline.pipeline.cells import Block, pending_cells, write
from mech_pipeline.pipeline.comparison.measured import Formation, chosen_examples, formations, predictions
from mech_pipeline.pipeline.comparison.wanted import CODE_VERSION, stopped_short, wanted
from mech_pipeline.pipeline.stage import Cells, View
from mech_pipeline.progress import Emit
from mech_pipeline.spec.experiment import Experiment

Columns = dict[str, list[Any]]
_SHIFT = ("pairs", "bounds", "lower", "upper", "p", "smallest_p")
_COMPARED = ("arm", "reference", "reference_step", "relative", "p_holm", "smallest_p_holm", "detectable", "p_log_rank")


def compute_comparisons(view: View, emit: Emit = lambda line: None) -> int:
    """Everything of an experiment that is not current; returns how many tables were written."""
    experiment, cells = view.whole, wanted(view)
    todo = {cell.table for cell in pending_cells(view.store, cells)}
    if not todo:
        return 0
    formed = formations(view.store, experiment)
    rows: dict[str, Columns] = {}
    if todo & {"arms", "comparisons"}:
        rows["arms"] = _arms(formed, chosen_examples(view.store, experiment))
        rows["comparisons"] = _comparisons(experiment, formed, emit)
    if todo & {"predictions", "causal_measures"}:
        predicted = predictions(view.store, experiment)
        rows["predictions"] = predicted.to_dict(as_series=False)
        short = Counter(target.measures for target in stopped_short(view.store, experiment))
        for (mechanism, subject), count in short.items():
            emit(
                f"{mechanism}, {subject}: {count} runs stopped before their target, where they cannot be held against it"
            )
        rows["causal_measures"] = _measures(experiment, formed, predicted, short)
    return _write(view, cells, rows)


def _write(view: View, cells: Cells, rows: Mapping[str, Columns]) -> int:
    """Tables that are wanted, each in one commit."""
    made = {cell: cells[cell] for cell in cells if cell.table in rows}
    for cell, made_from in made.items():
        write(view.store, [Block(cell, rows[cell.table], made_from)], CODE_VERSION)
    return len(made)


def _arms(formed: Formation, chosen: Mapping[str, float]) -> Columns:
    found = [
        (arm, mechanism, runs, median(runs) if runs else Median(None, None, None))
        for mechanism, arms in formed.items()
        for arm, runs in arms.items()
    ]
    return {
        "arm": [arm for arm, _, _, _ in found],
        "mechanism": [mechanism for _, mechanism, _, _ in found],
        "runs": [len(runs) for _, _, runs, _ in found],
        "formed": [sum(run.upper is not None for run in runs) for _, _, runs, _ in found],
        "median": [half.step for _, _, _, half in found],
        "median_lower": [half.lower for _, _, _, half in found],
        "median_upper": [half.upper for _, _, _, half in found],
        "chosen": [chosen.get(arm) for arm, _, _, _ in found],
    }


def _comparisons(experiment: Experiment, formed: Formation, emit: Emit) -> Columns:
    every = [(mechanism, each) for mechanism, arms in formed.items() for each in compare(pairs(experiment), arms)]
    for mechanism, each in every:
        if each.shift is not None and each.p_holm is not None and each.p_holm < LEVEL:
            emit(_sentence(mechanism, each, each.p_holm))
    columns: Columns = {name: [getattr(each, name) for _, each in every] for name in _COMPARED}
    columns |= {name: [getattr(each.shift, name, None) for _, each in every] for name in _SHIFT}
    columns["shift"] = [None if each.shift is None else each.shift.steps for _, each in every]
    columns["mechanism"] = [mechanism for mechanism, _ in every]
    for name in ("pairs", "bounds"):
        columns[name] = [value or 0 for value in columns[name]]
    return columns


def _sentence(mechanism: str, each: Comparison, p: float) -> str:
    assert each.shift is not None, "only claims are told"
    direction = "later" if each.shift.steps > 0 else "earlier"
    return (
        f"{mechanism} forms {abs(each.shift.steps):g} updates {direction} in {each.arm} than in {each.reference} "
        f"({each.shift.pairs} pairs, p {p:.2g} after Holm)"
    )


def _measures(
    experiment: Experiment, formed: Formation, predicted: pl.DataFrame, short: Mapping[tuple[str, str], int]
) -> Columns:
    found: list[tuple[str, str, Measure]] = []
    for family in doses(experiment):
        subject = f"{family.what}: {' < '.join(family.arms)}"
        for mechanism, arms in formed.items():
            found += [(mechanism, subject, each) for each in _trend([arms.get(arm, []) for arm in family.arms])]
    for (mechanism, method), rows in predicted.group_by(["mechanism", "method"], maintain_order=True):
        expected, measured = rows["predicted"].to_numpy(), rows["measured"].to_numpy()
        measures = calibration(expected, measured, rows["seed"].to_numpy().astype(np.int64))
        found += [(str(mechanism), f"predictions by {method}", each) for each in measures]
    found += [(*what, Measure("stopped_before", float(count), None, None, count)) for what, count in short.items()]
    columns: Columns = {"mechanism": [m for m, _, _ in found], "subject": [subject for _, subject, _ in found]}
    columns["metric"] = [each.name for _, _, each in found]
    return columns | {name: [getattr(each, name) for _, _, each in found] for name in ("value", "lower", "upper", "n")}


def _trend(arms: list[list[Formed]]) -> list[Measure]:
    found = trend(arms)
    names = ("page", "page_expected", "page_p")
    if found is None:
        return [Measure(name, None, None, None, 0) for name in names]
    values = (found.statistic, found.expected, found.p)
    return [Measure(name, value, None, None, found.seeds) for name, value in zip(names, values, strict=True)]
