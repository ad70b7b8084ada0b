"""States as safetensors: `model.<name>`, `exp_avg.<name>`, `exp_avg_sq.<name>`; never pickle.

`model.*` loads into the same architecture anywhere. The hash of a state covers the raw bytes of weights and moments,
so two states are equal exactly when their hashes are.
"""

import hashlib
from collections.abc import Mapping

import torch
from safetensors.torch import load, save

from mech_pipeline.errors import MechError
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.parts import PARTS
from mech_pipeline.training.update.optimizer import State, Vector


def vector_sha256(*vectors: Vector) -> str:
    """SHA-256 of the raw bytes."""
    digest = hashlib.sha256()
    for vector in vectors:
        digest.update(vector.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def state_sha256(state: State) -> str:
    """SHA-256 of step, weights and moments."""
    return hashlib.sha256(f"{state.step}:{vector_sha256(state.theta, state.m, state.v)}".encode()).hexdigest()


def pack_state(state: State, flat: FlatModel, metadata: Mapping[str, str] | None = None) -> bytes:
    """A state as the content of one safetensors file, with text that describes it.

    Equal states make equal files if the metadata have one entry: safetensors writes several in random order.
    """
    tensors = {
        f"{part}.{name}": tensor.cpu().contiguous()
        for part, field in PARTS.items()
        for name, tensor in flat.named(getattr(state, field)).items()
    }
    return save(tensors, metadata=dict(metadata or {"step": str(state.step)}))


def unpack_state(content: bytes, step: int, flat: FlatModel, what: str) -> State:
    """The state in a safetensors file.

    Raises:
        MechError: the file holds other parameters than the model has.
    """
    tensors = load(content)
    theta, m, v = (_vector(tensors, part, flat, what) for part in PARTS)
    return State(step, theta, m, v)


def unpack_weights(content: bytes, flat: FlatModel, what: str) -> Vector:
    """The weights alone in a safetensors file, which need not hold moments.

    Raises:
        MechError: the file holds other parameters than the model has.
    """
    return _vector(load(content), "model", flat, what)


def _vector(tensors: Mapping[str, torch.Tensor], part: str, flat: FlatModel, what: str) -> Vector:
    """All parameters of one part, one after another."""
    pieces = []
    for slot in flat.slots:
        tensor = tensors.get(f"{part}.{slot.name}")
        if tensor is None or tuple(tensor.shape) != slot.shape:
            found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise MechError(
                f"{what} does not fit the model: {part}.{slot.name} is {found}, expected {slot.shape}",
                "it was written by another spec; run the experiment that wrote it",
            )
        pieces.append(tensor.reshape(-1))
    return torch.cat(pieces).to(flat.vector.device)
