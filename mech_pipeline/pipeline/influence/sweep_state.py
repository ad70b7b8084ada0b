"""An unfinished influence sweep, kept so that a crash costs seconds and not hours.

One file holds the adjoints and all scores so far; the table `sweeps` names it. A sweep of other targets, training or
settings has another fingerprint and starts anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from mech_pipeline.attribution.influence.adjoint import Adjoint
from mech_pipeline.attribution.influence.influence import SweepState, UpdateInfluence
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.store.blobs import Blob, is_there
from mech_pipeline.store.store import Store


@dataclass
class TargetScores:
    """What a sweep has found for one target, last update first.

    Attributes:
        parts: scores by component, or the whole in one column.
        tokens: by target token, if they are wanted.
        target_norm: ‖∇M(θ_T)‖; none where whoever sweeps keeps it elsewhere.
    """

    steps: list[int] = field(default_factory=list)
    examples: list[np.ndarray] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    target_norm: float | None = None

    def add(self, part: UpdateInfluence, scores: np.ndarray, *, tokens: bool = False) -> None:
        """One update more.

        Args:
            scores: of its examples, by component or whole, [example, part].
            tokens: whether scores by token are kept too.
        """
        self.steps.append(part.step)
        self.norms.append(part.adjoint_norm)
        self.examples.append(part.made.examples.numpy())
        self.parts.append(scores)
        if tokens:
            self.tokens.append(part.tokens.cpu().numpy())


@dataclass(frozen=True)
class Kept:
    """An unfinished sweep."""

    state: SweepState
    found: list[TargetScores]


def keep(store: Store, run: str, step: int, made_from: str, state: SweepState, found: Sequence[TargetScores]) -> None:
    """Replaces what is kept of a sweep."""
    content = save(_tensors(state, found), metadata={"made_from": made_from})
    blob = store.put_blob(f"sweeps/run={run}/step={step:08d}", "sweep.safetensors", content)
    row = {
        "run": [run],
        "step": [step],
        "first_update": [state.step],
        "uri": [blob.uri],
        "bytes": [blob.bytes],
        "sha256": [blob.sha256],
        **provenance_columns(1, made_from, blob.sha256),
    }
    store.write("sweeps", row, replace={"run": [run], "step": [step]})


def find(store: Store, run: str, step: int, made_from: str, device: torch.device) -> Kept | None:
    """The unfinished sweep that was made from the same, if its file is whole; else none: the sweep starts anew.

    Args:
        device: where its adjoints go on.
    """
    with store.reading("sweeps") as connection:
        rows = connection.execute(
            "select uri, bytes, sha256 from sweeps where run = ? and step = ? and input_fingerprint = ?",
            [run, step, made_from],
        ).fetchall()
    if not rows:
        return None
    blob = Blob(*rows[0])
    if not is_there(store.files, blob):
        return None
    content = store.get_blob(blob, f"unfinished sweep of {run}", "`mech verify --repair`, then run again")
    return _unpacked(load(content), device)


def forget(store: Store, run: str, step: int) -> None:
    """Drops what is kept of a finished sweep; its file goes with the next `mech maintain`."""
    with store.reading("sweeps") as connection:
        there = connection.execute("select 1 from sweeps where run = ? and step = ?", [run, step]).fetchall()
    if there:
        store.delete("sweeps", f"run = '{run}' and step = {step}")


def _tensors(state: SweepState, found: Sequence[TargetScores]) -> dict[str, Tensor]:
    tensors = {
        "step": torch.tensor([state.step]),
        "live": torch.tensor(state.live, dtype=torch.int64),
        "ended": torch.tensor(state.ended, dtype=torch.int64),
    }
    if state.adjoint is not None:
        tensors |= {f"adjoint.{name}": getattr(state.adjoint, name).contiguous() for name in ("theta", "m", "v")}
    for index, scores in enumerate(found):
        if scores.steps:
            tensors[f"{index}.steps"] = torch.tensor(scores.steps)
            tensors[f"{index}.norms"] = torch.tensor(scores.norms, dtype=torch.float64)
            if scores.target_norm is not None:
                tensors[f"{index}.target_norm"] = torch.tensor([scores.target_norm], dtype=torch.float64)
            for name in ("examples", "parts", "tokens"):
                if pieces := getattr(scores, name):
                    tensors[f"{index}.{name}"] = torch.from_numpy(np.stack(pieces))
    tensors["targets"] = torch.tensor([len(found)])
    return tensors


def _unpacked(tensors: dict[str, Tensor], device: torch.device) -> Kept:
    adjoint = None
    if "adjoint.theta" in tensors:
        adjoint = Adjoint(*(tensors[f"adjoint.{name}"].to(device) for name in ("theta", "m", "v")))
    found = []
    for index in range(int(tensors["targets"])):
        scores = TargetScores()
        if f"{index}.steps" in tensors:
            scores.steps = tensors[f"{index}.steps"].tolist()
            scores.norms = tensors[f"{index}.norms"].tolist()
            if f"{index}.target_norm" in tensors:
                scores.target_norm = float(tensors[f"{index}.target_norm"])
            for name in ("examples", "parts", "tokens"):
                if f"{index}.{name}" in tensors:
                    setattr(scores, name, list(tensors[f"{index}.{name}"].numpy()))
        found.append(scores)
    live, ended = (tuple(tensors[name].tolist()) for name in ("live", "ended"))
    return Kept(SweepState(int(tensors["step"]), live, ended, adjoint), found)
