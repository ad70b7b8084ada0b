"""A run opened for work: its tokens, a trainer, its checkpoints. Shared by training, analysis and attribution."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO

from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.data.order import Order
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Version
from mech_pipeline.pipeline.checkpoints import (
    artifact_versions,
    checkpoint_blobs,
    current_checkpoints,
    training_fingerprint,
)
from mech_pipeline.pipeline.grid import planned_steps
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.tokens.tokens import Tokens, load_tokens
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from mech_pipeline.store.tensors import tensor_names
from mech_pipeline.training.bridge_type import TransformerBridge
from mech_pipeline.training.checkpoints import has_moments, state_sha256, unpack_state, unpack_weights
from mech_pipeline.training.device import training_device
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.many.ranks import Ranks
from mech_pipeline.training.many.stack import Together
from mech_pipeline.training.model import build_model
from mech_pipeline.training.update.optimizer import State, Vector


@dataclass
class OpenRun:
    """Everything that stages share. What is costly (tokens, model) is loaded when first asked for.

    Attributes:
        training: fingerprint of what every checkpoint is made from.
        artifacts: data version of each tokenised artifact.
        checkpoints: the current checkpoints, by rising step.
        planned: the steps that the experiment's results rest on.
        ranks: the processes that train it together; everything else is done by one.
        together: the runs that are trained in one stack with it.
    """

    store: Store
    spec: RunSpec
    ranks: Ranks = field(default_factory=Ranks)
    together: Together | None = None
    training: str = field(init=False)
    artifacts: dict[str, str] = field(init=False)
    checkpoints: dict[int, Version] = field(init=False)
    planned: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        training = training_fingerprint(self.store, self.spec)
        if training is None:
            raise MechError(
                f"run {self.spec.run} has no tokens", "materialize `tokens` for it, or `mech run` its experiment"
            )
        self.training = training
        self.artifacts = artifact_versions(self.store, self.spec.run)
        self.refresh()

    @cached_property
    def tokens(self) -> Tokens:
        """Pool and probe."""
        return load_tokens(self.store, self.spec)

    @cached_property
    def trainer(self) -> Trainer:
        """Model, optimizer and data order of the run."""
        spec, tokens = self.spec, self.tokens
        model = build_model(spec.model, tokens.vocabulary, tokens.pool.shape[1], spec.seed)
        sharded = spec.training.sharded and self.ranks.count > 1
        flat = FlatModel(model if sharded else model.to(training_device(spec.training)))
        return self._kind(sharded)(
            flat,
            spec.optimizer,
            spec.training,
            tokens.pool,
            spec.seed,
            spec.run,
            ranks=self.ranks,
            together=self.together,
            order=self._order(),
            example_weights=tokens.weights,
        )

    @staticmethod
    def _kind(sharded: bool) -> type[Trainer]:
        if not sharded:
            return Trainer
        from mech_pipeline.training.many.sharded import ShardedTrainer  # FSDP takes a second to import

        return ShardedTrainer

    def _order(self) -> Order | None:
        """The order of a mixture; without one, the trainer's own."""
        mixture = self.spec.data.mixture
        if not mixture:
            return None
        groups = self.tokens.stored.members(list(dict.fromkeys(name for phase in mixture for name in phase.weights)))
        return Order(self.spec.seed, groups, mixture, self.spec.training.batch)

    @cached_property
    def components(self) -> Components:
        """Components of the model."""
        return components_of(self.trainer.flat, self.spec.model.heads, self.spec.model.key_value_heads)

    @cached_property
    def ledger_components(self) -> Components:
        """Components as finely as the run's ledger asks for."""
        if not self.spec.ledger_by.neurons:
            return self.components
        heads = self.spec.model.heads, self.spec.model.key_value_heads
        return components_of(self.trainer.flat, *heads, neurons=True)

    @cached_property
    def bridged(self) -> tuple[FlatModel, TransformerBridge]:
        """A second model of the run with a TransformerBridge around it: load a state's θ into the first."""
        from mech_pipeline.training.bridging import bridge

        tokens = self.tokens
        model = build_model(self.spec.model, tokens.vocabulary, tokens.pool.shape[1], self.spec.seed, for_bridge=True)
        flat = FlatModel(model)  # before the bridge, which rewires the module
        return flat, bridge(model)

    def refresh(self) -> None:
        """Reads the checkpoint rows and the plan again."""
        self.checkpoints = current_checkpoints(self.store, self.spec)
        self._blobs = checkpoint_blobs(self.store, self.spec.run)
        self.planned = planned_steps(self.store, self.spec)

    def state(self, step: int) -> State:
        """A checkpoint, verified against its hash.

        Raises:
            MechError: it was not made, or its file is missing or corrupt.
        """
        content, what = self._content(step)
        return unpack_state(content, step, self.trainer.flat, what)

    def weights(self, step: int) -> Vector:
        """The weights of a checkpoint, which need not have moments; see `state`."""
        content, what = self._content(step)
        return unpack_weights(content, self.trainer.flat, what)

    def _content(self, step: int) -> tuple[bytes, str]:
        """The file of a checkpoint, and what it is in words."""
        what = f"checkpoint {step} of run {self.spec.run}"
        blob = self._blobs.get(step)
        if blob is None:
            raise MechError(
                f"{what} does not exist", f"`mech run` its experiment; there is {sorted(self._blobs)[:5]} …"
            )
        again = "`mech verify --repair`, then `mech run` the experiment: it is trained again from the one before"
        return self.store.get_blob(blob, what, again), what

    def _opened(self, step: int) -> BinaryIO:
        """The file of a checkpoint, unchecked: its header says what it holds."""
        path = self.store.files.local_path(self._blobs[step].uri)
        return BytesIO(self._content(step)[0]) if path is None else path.open("rb")

    @cached_property
    def brings(self) -> frozenset[Need]:
        """What its checkpoints bring: a run that was trained here brings all; an imported one perhaps weights alone."""
        found = {Need.WEIGHTS} if self.checkpoints else set(Need)  # what is not there yet will be trained
        if "pool" in self.artifacts:
            found |= {Need.POOL, Need.ORDER}
        if self.checkpoints:
            with self._opened(max(self.checkpoints)) as file:
                found |= {Need.MOMENTS} if has_moments(tensor_names(file)) else set()
        return frozenset(found)

    def replay(self, begin: int, end: int) -> list[Update]:
        """All updates between two checkpoints, verified bit for bit against the second.

        Raises:
            MechError: the replay ended in another state than training did.
        """
        updates = list(self.trainer.updates(self.state(begin), end))
        self.verify(updates[-1].after)
        return updates

    def verify(self, state: State) -> None:
        """Compares a replayed state with the checkpoint of its step."""
        expected = self.checkpoints.get(state.step)
        if expected is not None and state_sha256(state) != expected.data_version:
            raise MechError(
                f"replay of run {self.spec.run} does not reach checkpoint {state.step} bit for bit",
                f'replay on the device and with the versions it was trained with (`mech sql "select device, versions from '
                f"runs where run = '{self.spec.run}'\"`)",
            )

    def windows(self, until: int, also: Iterable[int] = ()) -> list[tuple[int, int]]:
        """Consecutive (checkpoint, next checkpoint) up to `until`, first to last.

        Args:
            also: zoomed states that bound windows as well; the others do not.
        """
        bounds = {*self.planned, *also}
        steps = [step for step in self.checkpoints if step <= until and step in bounds]
        return list(pairwise(steps))

    def checkpoint_version(self, step: int) -> str:
        """Data version of a checkpoint.

        Raises:
            MechError: it is not there.
        """
        if step not in self.checkpoints:
            raise MechError(
                f"checkpoint {step} of run {self.spec.run} does not exist", "`mech run` its experiment first"
            )
        return self.checkpoints[step].data_version
