"""The table `head_scores`: every detector of the experiment on every attention head of a checkpoint."""

from collections.abc import Sequence

import torch

from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.cells import Block, Cell
from mech_pipeline.pipeline.grid import detector_probe_version
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.fingerprint import fingerprint

TABLE = "head_scores"


def code_version() -> str:
    """One version for all detectors, for Dagster to display."""
    return fingerprint({name: detector.version for name, detector in DETECTORS.items()})[:8]


def wanted(run: OpenRun, step: int) -> dict[Cell, str]:
    """Fingerprint of each detector's scores at a checkpoint."""
    state, cells = run.checkpoint_version(step), dict[Cell, str]()
    for name in run.spec.detectors:
        probe = detector_probe_version(name, run.artifacts)
        made_from = fingerprint("detector", name, DETECTORS[name].version, state, probe, run.spec.model)
        cells[Cell(TABLE, run.spec.run, step, name)] = made_from
    return cells


def compute(at: Loaded, cells: Sequence[Cell], made_from: dict[Cell, str]) -> list[Block]:
    """The scores of detectors on all heads of a checkpoint."""
    blocks = []
    for cell in cells:
        assert cell.item is not None, "scores are of a detector"
        patterns = at.patterns
        with torch.no_grad():
            scores = DETECTORS[cell.item].score(at.run.bridged[1], patterns, at.run.tokens.probe)
        layers, heads = scores.shape
        columns = {
            "layer": [layer for layer in range(layers) for _ in range(heads)],
            "head": list(range(heads)) * layers,
            "value": scores.double().flatten().tolist(),
        }
        blocks.append(Block(cell, columns, made_from[cell]))
    return blocks
