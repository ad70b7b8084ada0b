"""The table `mechanism_values`: every mechanism of the experiment at a checkpoint."""

from collections.abc import Sequence

import torch

from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.cells import Block, Cell

TABLE = "mechanism_values"


def compute(at: Loaded, cells: Sequence[Cell], made_from: dict[Cell, str]) -> list[Block]:
    """The values of mechanisms at a checkpoint."""
    blocks = []
    for cell in cells:
        assert cell.item is not None, "a value is of a mechanism"
        with torch.no_grad():
            value = float(MECHANISMS[cell.item].value(at.run.trainer.flat.model, at.run.tokens.probe))
        blocks.append(Block(cell, {"value": [value]}, made_from[cell]))
    return blocks
