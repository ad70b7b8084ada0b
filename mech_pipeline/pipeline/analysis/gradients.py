"""The table `gradients`: gradient tensors of mechanisms and of the next batch, in one file per checkpoint."""

from collections.abc import Sequence
from typing import Any

from safetensors.torch import save

from mech_pipeline.attribution.per_example.component_labels import names_version
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.cells import Block, Cell
from mech_pipeline.pipeline.grid import mechanism_versions, probe_version
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.care.registration import registration
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import Vector

TABLE = "gradients"
CODE_VERSION = "1"
BATCH = "batch"


def code_version() -> str:
    """The version of this code and of all mechanisms, for Dagster to display."""
    return f"{CODE_VERSION}-{mechanism_versions()}"


def wanted(run: OpenRun, step: int) -> dict[Cell, str]:
    """Fingerprint of each gradient; the tensors are large, so there are none at the steps that only a zoom keeps."""
    spec, cells = run.spec, dict[Cell, str]()
    if step not in run.planned or not spec.gradients:
        return cells
    state, made_by = run.checkpoint_version(step), [spec.model, *names_version(spec.model)]
    for name in spec.gradients:
        version, probe = MECHANISMS[name].version, probe_version(name, run.artifacts)
        made_from = fingerprint("gradient", CODE_VERSION, name, version, state, probe, *made_by)
        cells[Cell(TABLE, spec.run, step, name)] = made_from
    batch: list[Any] = [run.artifacts["pool"], spec.seed, spec.training.batch]
    batch += [spec.data.mixture] if spec.data.mixture else []
    batch += [run.artifacts["weights"]] if spec.data.weights is not None else []
    cells[Cell(TABLE, spec.run, step, BATCH)] = fingerprint("gradient", CODE_VERSION, BATCH, state, batch, *made_by)
    return cells


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
