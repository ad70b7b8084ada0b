"""First-order scores of a run's examples, taken from the training backward itself (`in_training:` of an experiment).

Directions are renewed at every planned checkpoint, the anchors; before the first one with a second moment there are none.
The scores explain what an update did, as the ledger does, with ∇M and D as they were at the anchor; nothing is replayed.
Weights and checkpoints have the bits of a training without them.
"""

from collections.abc import Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.in_training import InTraining, step_directions
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.checkpoints import checkpoint_fingerprint
from mech_pipeline.pipeline.influence.score_rows import ExampleScores
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import State

CODE_VERSION = "1"


@dataclass(frozen=True)
class Captured:
    """Scores of one update.

    Attributes:
        examples: places in the pool.
        scores: a row per mechanism, in its unit.
    """

    step: int
    examples: np.ndarray
    scores: np.ndarray


def captured_updates(
    run: OpenRun, state: State, until: int, whole: Container[int]
) -> Iterator[tuple[Update, Captured | None]]:
    """The updates of `Trainer.updates`, each with its scores if the run asks for some."""
    if not run.spec.in_training.mechanisms:
        yield from ((made, None) for made in run.trainer.updates(state, until, whole))
        return
    with ExitStack() as listening:
        capturing = _Capturing(run, listening)
        capturing.anchor(state)
        for made in run.trainer.updates(state, until, whole):
            yield made, capturing.take(made)
            capturing.anchor(made.after)


class _Capturing:
    """Listens to the backward of updates once there are directions.

    Args:
        listening: holds what listens at present, so that nothing does when its block ends.
    """

    def __init__(self, run: OpenRun, listening: ExitStack) -> None:
        self._run, self._listening = run, listening
        self._contraction = Contraction(run.trainer.flat, run.components, run.spec.in_training.components or None)
        self._anchors = set(run.planned)
        self._scoring: InTraining | None = None

    def anchor(self, state: State) -> None:
        """Renews the directions, if the state is an anchor."""
        trainer = self._run.trainer
        if state.step not in self._anchors or (state.step == 0 and trainer.optimizer.kind != "sgd"):
            return
        self._listening.close()  # the probe's gradient must not be listened to
        trainer.flat.load(state.theta)
        names, probe = self._run.spec.in_training.mechanisms, self._run.tokens.probe
        gradients = torch.stack([mechanism_gradient(name, trainer.flat, probe) for name in names])
        directions = step_directions(trainer.optimizer, state, gradients)
        self._scoring = self._listening.enter_context(InTraining(trainer, self._contraction, directions))

    def take(self, made: Update) -> Captured | None:
        """The scores of the update that was just made."""
        if self._scoring is None:
            return None
        scores = self._scoring.scores().sum(dim=2) * (made.clip / len(made.examples))
        return Captured(made.before.step, made.examples.numpy(), scores.cpu().numpy())


def write_captured(run: OpenRun, leads_to: int, captured: list[Captured]) -> None:
    """Publishes the scores of the updates that led to a checkpoint, before the checkpoint itself."""
    gathered = ExampleScores.gathered(
        [each.step for each in captured], [each.examples for each in captured], [each.scores.T for each in captured]
    )
    columns = gathered.columns(run.tokens.example_ids) | {"mechanism": gathered.parts(run.spec.in_training.mechanisms)}
    block = Block(Cell("in_training", run.spec.run), columns, checkpoint_fingerprint(run.training, leads_to))
    write(run.store, [block], CODE_VERSION, within={"update_step": sorted({each.step for each in captured})})
