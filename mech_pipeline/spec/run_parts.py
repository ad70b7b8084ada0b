"""What one training run is made of, all stages with the arm's overrides applied, and what that says of it."""

from pathlib import Path

from mech_pipeline.spec.analysis import (
    HELD_OUT,
    WEIGHTS,
    Circuits,
    Discovery,
    Event,
    Influence,
    InTraining,
    Neurons,
    Readouts,
    Resolution,
)
from mech_pipeline.spec.choice import Recipe
from mech_pipeline.spec.data import Corpus, Data, Probe, Tokenizer
from mech_pipeline.spec.imported import Imported
from mech_pipeline.spec.intervention import Intervention
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.signals import OnAlarm
from mech_pipeline.spec.stage import Stage, added
from mech_pipeline.spec.training import Checkpoints, Optimizer, Training, caveats

IMPORTED = "trained elsewhere: which examples each update saw is not known"
IMPORTED_WITH_BATCHES = (
    "trained elsewhere: a replay with other kernels ends in other states; the ledger says by how much"
)


class RunParts(Stage):
    """The parts of a run, each valid by itself."""

    run: str
    experiment: str
    arm: str
    seed: int
    corpus: Corpus
    tokenizer: Tokenizer
    data: Data
    model: Model
    optimizer: Optimizer
    training: Training
    checkpoints: Checkpoints
    probe: Probe
    mechanisms: tuple[str, ...]
    detectors: tuple[str, ...]
    gradients: tuple[str, ...]
    formation: tuple[Event, ...]
    ledger: tuple[str, ...]
    influence: Influence
    in_training: InTraining = added(InTraining(), "scores that training itself computes")
    circuits: Circuits = added(Circuits(), "which edges carry a mechanism, at some checkpoints")
    neurons: Neurons = added(Neurons(), "what made the MLP's neurons")
    ledger_by: Resolution = added(Resolution(), "how finely the ledger is split")
    held_out_loss: bool = added(False, f"every checkpoint is also measured on mechanism `{HELD_OUT}`")
    example_losses: bool = added(False, "loss of every example at every update that sees it")
    imported: Imported | None = added(None, "states that come from outside instead of training")
    readouts: Readouts = added(Readouts(), "which tokens the movements of neurons and heads promote and suppress")
    discovery: Discovery = added(Discovery(), "what formed that nobody named")
    choice: Recipe | None = added(None, "examples that are treated otherwise, by what was measured of other runs")
    signals: tuple[str, ...] = added((), "numbers of every checkpoint that know no mechanism")
    on_alarm: OnAlarm = added(OnAlarm(), "what is done when the locked alarm rings while the run trains")
    interventions: tuple[Intervention, ...] = added((), "heads and neurons that are held while the model trains")

    @property
    def home(self) -> Path:
        """The folder that relative names of files begin at."""
        return self.corpus.home

    @property
    def weighted(self) -> bool:
        """Whether examples have weights: from a file, or by choice."""
        return self.data.weights is not None or (self.choice is not None and not self.choice.rearranges)

    @property
    def rearranged(self) -> bool:
        """Whether updates see other examples than the seed says, by choice."""
        return self.choice is not None and self.choice.rearranges

    @property
    def treatments(self) -> tuple[str, ...]:
        """The artifacts that say what is done to single examples."""
        return ("weights",) * self.weighted + ("order",) * self.rearranged

    @property
    def accounts(self) -> tuple[str, ...]:
        """What the run's ledger has an account of: mechanisms, and perhaps the weights themselves."""
        return (*self.ledger, WEIGHTS) if self.ledger_by.weights else self.ledger

    @property
    def is_attributed(self) -> bool:
        """Whether ledger or influence are asked for: what takes longest comes after them."""
        return bool(self.accounts or self.influence.mechanisms)

    def caveats(self) -> tuple[str, ...]:
        """What makes attribution of this run unreliable or impossible, one sentence each."""
        imported: tuple[str, ...] = ()
        if self.imported is not None:
            imported = (IMPORTED if self.imported.batches is None else IMPORTED_WITH_BATCHES,)
        return imported + caveats(self.optimizer, self.training)

    @property
    def measured(self) -> tuple[str, ...]:
        """The mechanisms whose value every checkpoint has: those that are named, and the held-out loss where it is asked for."""
        return tuple(dict.fromkeys((*self.mechanisms, *([HELD_OUT] if self.held_out_loss else []))))

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The grid that is known before training; what adaptive plans and zooms add is in `pipeline/grid.py`."""
        return self.imported.found_steps if self.imported is not None else self.checkpoints.grid(self.training.steps)
