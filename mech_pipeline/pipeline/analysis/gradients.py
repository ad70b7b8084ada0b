"""The table `gradients`: gradient tensors of mechanisms and of the next batch, in one file per checkpoint."""

from collections.abc import Sequence
from typing import Any

from safetensors.torch import save

from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.analysis.wanted import BATCH
from mech_pipeline.pipeline.cells import Block, Cell
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.care.registration import registration
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import Vector

TABLE = "gradients"


def compute(at: Loaded, cells: Sequence[Cell], made_from: dict[Cell, str]) -> list[Block]:
    """Gradients at a checkpoint: one file of tensors, and their norms by component."""
    run, parts = at.run, list(at.run.components.names)
    tensors = {str(cell.item): _gradient(run, at.step, str(cell.item)) for cell in cells}
    norms = {name: run.components.norms(vector).tolist() for name, vector in tensors.items()}
    blob = _put(at, tensors, norms, [made_from[cell] for cell in cells])
    return [
        Block(
            cell,
            {
                "component": parts,
                "value": norms[str(cell.item)],
                "uri": [blob.uri] * len(parts),
                "bytes": [blob.bytes] * len(parts),
                "sha256": [blob.sha256] * len(parts),
            },
            made_from[cell],
        )
        for cell in cells
    ]


def _gradient(run: OpenRun, step: int, name: str) -> Vector:
    trainer = run.trainer
    if name != BATCH:
        return mechanism_gradient(name, trainer.flat, run.tokens.probe)
    examples = trainer.batch(step)
    with trainer.held(step):
        losses = example_losses(trainer.flat.model, trainer.tokens(examples))
    weights = trainer.weights_at(step, examples)
    return trainer.flat.gradient((losses if weights is None else losses * weights).mean())


def _put(at: Loaded, tensors: dict[str, Vector], norms: dict[str, list[float]], made_from: Sequence[str]) -> Blob:
    """The file; its header says which rows name it."""
    run, parts = at.run, list(at.run.components.names)
    count = len(parts) * len(norms)
    described: dict[str, list[Any]] = {
        "run": [run.spec.run] * count,
        "step": [at.step] * count,
        "gradient": [name for name in norms for _ in parts],
        "component": parts * len(norms),
        "value": [value for values in norms.values() for value in values],
        "input_fingerprint": [each for each in made_from for _ in parts],
    }
    content = save(
        {
            f"{name}.{part}": tensor.contiguous()
            for name, vector in tensors.items()
            for part, tensor in run.trainer.flat.named(vector).items()
        },
        metadata=registration(TABLE, described),
    )
    return run.store.put_blob(f"gradients/run={run.spec.run}/step={at.step:08d}", "gradients.safetensors", content)
