"""One training run, fully resolved, and what each stage of it depends on.

A run id is `<experiment>.<arm>.s<seed>`; its identity is the fingerprint of its resolved spec together with the
content of its corpus. Stage fingerprints hold only what that stage depends on: changing a formation threshold
leaves tokens, training and analysis untouched.
"""

import re
from pathlib import Path

from pydantic import model_validator

from mech_pipeline.errors import MechError
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
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.imported import Imported
from mech_pipeline.spec.intervention import Intervention, check_interventions
from mech_pipeline.spec.mixture import check_mixture
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.signals import OnAlarm
from mech_pipeline.spec.stage import Stage, added
from mech_pipeline.spec.training import Checkpoints, Optimizer, Training, caveats

VECTOR_WIDTH = 32
"""Numbers that PyTorch's widest CPU kernels take at a time; what is left over goes through other code."""
IMPORTED = "trained elsewhere: which examples each update saw is not known"
IMPORTED_WITH_BATCHES = (
    "trained elsewhere: a replay with other kernels ends in other states; the ledger says by how much"
)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run_id(experiment: str, arm: str, seed: int) -> str:
    """`<experiment>.<arm>.s<seed>`."""
    return f"{experiment}.{arm}.s{seed}"


def check_run_id(run: str) -> str:
    """Returns the id, or refuses it: Dagster silently drops partitions with `|`, and ranges break on `...` and `,`."""
    if not _RUN_ID.fullmatch(run) or ".." in run:
        raise MechError(
            f"run id {run!r} has characters that partitions and paths cannot carry",
            "use letters, digits, '.', '_' and '-', starting with a letter or digit and without '..'",
        )
    return run


class RunSpec(Stage):
    """One run: all stages with the arm's overrides applied."""

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

    @model_validator(mode="after")
    def _fits(self) -> "RunSpec":
        self.optimizer.check_horizon(self.optimizer.horizon or self.training.steps)
        self.checkpoints.check_number(self.training.steps)
        watched = self.checkpoints.adaptive.mechanism if self.checkpoints.adaptive else None
        if watched is not None and watched not in self.mechanisms:
            allowed = ", ".join(self.mechanisms)
            raise ValueError(f"checkpoints.adaptive: mechanism {watched!r} is not among the experiment's: {allowed}")
        has_mlp = self.model.family != "native" or self.model.d_mlp is not None
        if self.training.stacked and has_mlp and self.model.mlp_width % VECTOR_WIDTH:
            raise ValueError(
                f"stacked runs need d_mlp in multiples of {VECTOR_WIDTH}, got {self.model.mlp_width}: the end of a tensor "
                "is rounded another way, and bits would depend on the stack"
            )
        if self.training.sharded and not self.optimizer.linear:
            raise ValueError("sharded runs cannot use muon, which needs whole matrices; use adamw")
        for what, wanted, refused in (
            ("ledger", self.accounts, self.training.precision == "bf16" or not self.optimizer.linear),
            ("influence", self.influence.mechanisms, not self.optimizer.linear),
            ("discovery", self.discovery.atoms, self.training.precision == "bf16" or not self.optimizer.linear),
        ):
            if wanted and refused:
                reasons = "; ".join(self.caveats())
                raise ValueError(f"{what} of run {self.run}: {reasons}; take its arm out of `{what}.arms`")
        self._check_in_training()
        if self.imported is None:  # else `resolve` asks, when it is known which revisions there are, and of which model
            self.check_asked()
        self._check_interventions()
        self._check_stop()
        self._check_on_alarm()
        self._check_parts()
        check_mixture(self.data.mixture, self.data.shares(), self.corpus.parts)
        return self

    def _check_targets(self) -> None:
        """Influence is swept back from kept states."""
        if not self.influence.mechanisms or isinstance(self.influence.at, str):
            return
        if self.imported is not None:
            if unknown := [step for step in self.influence.at if step not in self.imported.found_steps]:
                raise ValueError(
                    f"influence.at: run {self.run} has no revision of step {unknown[0]}; choose one that it has"
                )
            return
        possible = set(self.checkpoints.possible(self.training.steps))
        for step in self.influence.at:
            if step <= 0 or step not in possible:
                raise ValueError(
                    f"influence.at: run {self.run} keeps no state at step {step}; choose a step of its checkpoint plan, "
                    f"or add it with checkpoints.extra: [{max(step, 1)}]"
                )

    def _check_neurons(self) -> None:
        """The model has neurons, and its updates can be taken apart."""
        if not self.neurons.windows:
            return
        if self.model.family == "native" and self.model.d_mlp is None:
            raise ValueError(f"neurons: the model of run {self.run} has no MLP; set model.d_mlp, or leave neurons out")
        if self.training.precision == "bf16" or not self.optimizer.linear:
            raise ValueError(
                f"neurons of run {self.run}: {'; '.join(self.caveats())}; take its arm out of neurons.arms"
            )

    def check_asked(self) -> None:
        """What is asked of single states and windows can be had of this run and its model.

        Raises:
            ValueError: it cannot.
        """
        self._check_targets()
        self._check_neurons()
        self._check_windows()

    def _check_windows(self) -> None:
        """Windows begin and end where states are."""
        grid = set(self.checkpoint_steps())
        for field, windows in (("neurons", self.neurons.windows), ("readouts", self.readouts.windows)):
            for step in [step for window in windows for step in window]:
                if step not in grid and self.imported is not None:
                    raise ValueError(
                        f"{field}.windows: run {self.run} has no revision of step {step}; choose one that it has"
                    )
                if step not in grid:
                    raise ValueError(
                        f"{field}.windows: run {self.run} plans no checkpoint at step {step}; choose one of its plan, or add it "
                        f"with checkpoints.extra: [{step}]"
                    )

    def _check_in_training(self) -> None:
        """Scores come from hooks on one process's own backward."""
        training = self.training
        ways = {
            "stacked": training.stacked,
            "compile": training.compile,
            "sharded": training.sharded,
            "several processes": training.processes > 1,
            "muon": not self.optimizer.linear,
            "bf16": training.precision == "bf16",
        }
        if self.in_training.mechanisms and any(ways.values()):
            raise ValueError(
                f"in_training of run {self.run}: not with {next(w for w, used in ways.items() if used)}; "
                "take its arm out of in_training.arms"
            )

    def _check_interventions(self) -> None:
        """Held parts are there, in a forward pass that hooks see; and nobody accounts for updates that compute otherwise."""
        if not self.interventions:
            return
        if self.imported is not None:
            raise ValueError(f"intervene of run {self.run}: its states come from outside and are not trained here")
        check_interventions(self.interventions, self.model, self.training.steps)
        ways = ("stacked", "compile", "sharded")
        if used := [way for way in ways if getattr(self.training, way)]:
            raise ValueError(f"intervene of run {self.run}: not with training.{used[0]}; leave that out of its arm")
        accounts = {
            "ledger": bool(self.accounts),
            "influence": bool(self.influence.mechanisms),
            "in_training": bool(self.in_training.mechanisms),
            "neurons": bool(self.neurons.windows),
            "discovery": self.discovery.atoms > 0,
        }
        if asked := [name for name, wanted in accounts.items() if wanted]:
            raise ValueError(
                f"{asked[0]} of run {self.run}: {self.interventions[0].words}, and accounts of single examples are made with "
                f"the model as it is; take its arm out of `{asked[0]}.arms`"
            )

    def _check_stop(self) -> None:
        """The rule watches a mechanism, and nothing is asked of steps that may never come."""
        stop, training = self.training.stop, self.training
        if stop is None:
            return
        if self.imported is not None:
            raise ValueError(f"training.stop: the states of run {self.run} come from outside and are not trained here")
        if self.formation[0].mechanism is None:
            raise ValueError("training.stop watches the first formation event, which must be of a mechanism")
        if self.in_training.mechanisms:
            raise ValueError(f"training.stop: not with in_training of run {self.run}, which listens to the same model")
        if training.processes > 1 or training.sharded:
            raise ValueError("training.stop: a run of several processes cannot stop early; train it in one")
        if stop.hopeless is not None and stop.hopeless.at > training.steps:
            raise ValueError(
                f"training.stop.hopeless.at: {stop.hopeless.at} is after the last of {training.steps} updates"
            )
        fixed = {
            "influence.at": bool(self.influence.mechanisms) and self.influence.at != "formation",
            "neurons": bool(self.neurons.windows),
        }
        if asked := [name for name, wanted in fixed.items() if wanted]:
            raise ValueError(
                f"training.stop: {asked[0]} of run {self.run} names steps that a stopped run may not reach"
            )

    def _check_on_alarm(self) -> None:
        """Listening needs a training of one process, which can be left between two updates."""
        if not self.on_alarm.asks:
            return
        if self.imported is not None:
            raise ValueError(
                f"signals.on_alarm: the states of run {self.run} come from outside and are not trained here"
            )
        if self.in_training.mechanisms:
            raise ValueError(
                f"signals.on_alarm: not with in_training of run {self.run}, which listens to the same model"
            )
        if self.checkpoints.adaptive is not None:
            raise ValueError(
                "signals.on_alarm: not with checkpoints.adaptive, which says afterwards what the checkpoint before is"
            )
        if self.training.processes > 1 or self.training.sharded:
            raise ValueError("signals.on_alarm: a run of several processes cannot be held; train it in one")

    def _check_parts(self) -> None:
        named, parts = set(self.data.part_shares), set(self.corpus.parts)
        if named and named != parts:
            raise ValueError(
                f"data.part_shares names {', '.join(sorted(named))}; the parts of the corpus are "
                f"{', '.join(sorted(parts)) or 'none'}"
            )

    def _check_resolved(self) -> None:
        """Fingerprints hold what files contain: a run whose files were not looked at has none."""
        for field, named, content in (
            ("tokenizer", self.tokenizer.file or self.tokenizer.name, self.tokenizer.sha256),
            ("data.weights", self.data.weights, self.data.weights_sha256),
            ("model.init_from", self.model.init_from, self.model.init_sha256),
            ("imported", self.imported and self.imported.place, self.imported and self.imported.found),
            (
                "imported.batches",
                self.imported and self.imported.batches,
                self.imported and self.imported.batches_sha256,
            ),
        ):
            if named is not None and not content:
                raise MechError(
                    f"run {self.run}: the content of {field} ({named}) is not known yet",
                    "take its runs from `mech_pipeline.resolve.resolve(experiment)`, which reads the files",
                )

    @property
    def home(self) -> Path:
        """The folder that relative names of files begin at."""
        return self.corpus.home

    def at(self, home: Path) -> "RunSpec":
        """The same run, with names of files that begin at a folder; nothing that is fingerprinted changes."""
        stages = {"corpus": self.corpus, "tokenizer": self.tokenizer, "data": self.data, "model": self.model}
        stages |= {} if self.imported is None else {"imported": self.imported}
        return self.model_copy(update={name: stage.at(home) for name, stage in stages.items()})

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

    def tokens_slice(self) -> str:
        """What tokens and examples depend on, the corpus' content aside."""
        self._check_resolved()
        return fingerprint(self.corpus, self.tokenizer, self.data.pool_slice())

    def training_slice(self) -> str:
        """What every checkpoint depends on, the tokens' content aside.

        Neither the number of steps nor the checkpoint plan is part of it: a longer run has the same first states
        (unless its learning rate is scheduled towards its end, and then the optimizer names the horizon).
        """
        self._check_resolved()
        mixture = [self.data.mixture] if self.data.mixture else []
        if self.imported is not None:
            how = (
                [self.optimizer, self.training.identity(), self.imported.batches_sha256]
                if self.imported.batches
                else []
            )
            how += [self.imported.moments] if self.imported.moments != "published" else []
            return fingerprint(self.model, self.imported.layout, self.imported.place, *how)
        held = [{"interventions": self.interventions}] if self.interventions else []
        return fingerprint(self.model, self.optimizer, self.training.identity(), self.seed, *mixture, *held)

    def trunk_slice(self) -> str:
        """What every checkpoint would depend on if nothing were held in the model."""
        return self.model_copy(update={"interventions": ()}).training_slice()

    def fingerprint(self, corpus_sha256: str) -> str:
        """The run's identity."""
        self._check_resolved()
        return fingerprint(self, corpus_sha256)

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The grid that is known before training; what adaptive plans and zooms add is in `pipeline/grid.py`."""
        return self.imported.found_steps if self.imported is not None else self.checkpoints.grid(self.training.steps)
