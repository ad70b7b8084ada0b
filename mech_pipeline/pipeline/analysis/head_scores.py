"""The table `head_scores`: every detector of the experiment on every attention head of a checkpoint."""

from collections.abc import Sequence

import torch

from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.cells import Block, Cell

TABLE = "head_scores"


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
