"""The report's table of head classes: which heads each run has of a class at the end, and since when."""

from collections.abc import Sequence
from typing import Any

import duckdb

from mech_pipeline.mechanisms.detectors.head_classes import IOI_CLASSES, members
from mech_pipeline.reports.formation import queries
from mech_pipeline.spec.experiment import Experiment


def head_classes(connection: duckdb.DuckDBPyConnection, experiment: Experiment, runs: Sequence[str]) -> dict[str, Any]:
    """Runs, and for each class what it does and a cell for each run; no rows where no class can be told."""
    asked = [each for each in IOI_CLASSES if each.detectors <= set(experiment.detectors)]
    scores = {run: queries.head_scores(connection, run) for run in runs} if asked else {}
    found = {
        run: list(frame.select("step", "layer", "head", "detector", "value").iter_rows())
        for run, frame in scores.items()
    }
    found = {run: rows for run, rows in found.items() if rows}
    rows = [
        {"name": each.name, "does": each.does, "cells": [_cell(members(each, rows)) for rows in found.values()]}
        for each in asked
    ]
    return {"runs": list(found), "rows": rows if found else []}


def _cell(since: dict[tuple[int, int], int]) -> str:
    return ", ".join(f"L{layer}H{head} since {step:,}" for (layer, head), step in since.items()) or "absent"
