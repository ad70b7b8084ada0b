"""Muon for the hidden matrices, AdamW for everything else, as one pure function of a state.

A hidden matrix is a two-dimensional weight inside a numbered layer; embeddings, unembedding, norms and biases are the
rest. The update of a matrix is orthogonalised (Newton–Schulz, in bf16) and scaled to AdamW's usual size, so that both
share one learning rate. PyTorch's own `torch.optim.Muon` does it. Sources: Jordan et al. 2024; Liu et al. 2025
(scaling: 0.2 √max(rows, columns)).

An orthogonalised update is not linear in the gradients it sums: there is no exact ledger and no closed adjoint.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mech_pipeline.spec.training import Optimizer
from mech_pipeline.training.flat import Slot
from mech_pipeline.training.update.optimizer import State, Vector, update
from mech_pipeline.training.update.schedule import learning_rate

_IN_A_LAYER = re.compile(r"\.\d+\.")


def hidden_matrices(slots: Sequence[Slot]) -> list[Slot]:
    """The parameters that Muon updates."""
    return [slot for slot in slots if len(slot.shape) == 2 and _IN_A_LAYER.search(slot.name)]


def muon_update(spec: Optimizer, state: State, gradient: Vector, clip: float, slots: Sequence[Slot]) -> State:
    """One update; `m` holds Muon's momentum for hidden matrices and Adam's for the rest, `v` is Adam's."""
    after = update(spec, state, gradient, clip)
    theta, m, v = after.theta, after.m, after.v
    hidden = hidden_matrices(slots)
    parameters = [nn.Parameter(_matrix(state.theta, slot).clone()) for slot in hidden]
    peer = torch.optim.Muon(
        parameters,
        lr=learning_rate(spec, state.step),
        weight_decay=spec.weight_decay,
        momentum=spec.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    for parameter, slot in zip(parameters, hidden, strict=True):
        parameter.grad = _matrix(gradient, slot) * clip
        peer.state[parameter]["momentum_buffer"] = _matrix(state.m, slot).clone()
    peer.step()
    for parameter, slot in zip(parameters, hidden, strict=True):
        part = slice(slot.begin, slot.end)
        theta[part] = parameter.detach().flatten()
        m[part] = peer.state[parameter]["momentum_buffer"].flatten()
        v[part] = 0
    return State(after.step, theta, m, v)


def _matrix(vector: Vector, slot: Slot) -> Tensor:
    return vector[slot.begin : slot.end].view(slot.shape)
