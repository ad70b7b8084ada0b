"""A run opened for work: its tokens, a trainer, its checkpoints. Shared by training, analysis and attribution."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch

from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.held import held
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.order import order_of
from mech_pipeline.pipeline.tokens.tokens import Tokens, load_tokens
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridge_type import TransformerBridge
from mech_pipeline.training.checkpoints import state_sha256, unpack_state, unpack_weights
from mech_pipeline.training.device import training_device
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.many.ranks import Ranks
from mech_pipeline.training.many.stack import Together
from mech_pipeline.training.model import build_model
from mech_pipeline.training.update.optimizer import State, Vector


@dataclass
class OpenRun(FoundRun):
    """Everything that stages share. What is costly (tokens, model) is loaded when first asked for.

    Attributes:
        ranks: the processes that train it together; everything else is done by one.
        together: the runs that are trained in one stack with it.
    """

    ranks: Ranks = field(default_factory=Ranks)
    together: Together | None = None

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
            order=order_of(self.store, self.spec, self.tokens),
            example_weights=tokens.weights,
            holding=partial(held, flat.model, spec.interventions) if spec.interventions else None,
        )

    @staticmethod
    def _kind(sharded: bool) -> type[Trainer]:
        if not sharded:
            return Trainer
        from mech_pipeline.training.many.sharded import ShardedTrainer  # FSDP takes a second to import

        return ShardedTrainer

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
        return self._bridged(self.spec.model)

    def bridged_at(self, step: int) -> TransformerBridge:
        """A model of its own with the weights of a checkpoint and a TransformerBridge around it; see `state`."""
        flat, wrapped = self._bridged(self.spec.model.model_copy(update={"init_from": None}))  # they are replaced
        content, what = self.content(step)
        flat.load(unpack_weights(content, flat, what))
        return wrapped.eval()

    def _bridged(self, spec: Model) -> tuple[FlatModel, TransformerBridge]:
        from mech_pipeline.training.bridging import bridge

        tokens = self.tokens
        model = build_model(spec, tokens.vocabulary, tokens.pool.shape[1], self.spec.seed, for_bridge=True)
        flat = FlatModel(model)  # before the bridge, which rewires the module
        return flat, bridge(model)

    def state(self, step: int) -> State:
        """A checkpoint, verified against its hash.

        Raises:
            MechError: it was not made, or its file is missing or corrupt.
        """
        content, what = self.content(step)
        return unpack_state(content, step, self.trainer.flat, what)

    def weights(self, step: int) -> Vector:
        """The weights of a checkpoint, which need not have moments; see `state`."""
        content, what = self.content(step)
        return unpack_weights(content, self.trainer.flat, what)

    def values_at(self, theta: Vector, mechanisms: Iterable[str]) -> dict[str, float]:
        """Mechanisms of the run's model with these weights, on the run's probe."""
        flat = self.trainer.flat
        flat.load(theta)
        return {name: float(MECHANISMS[name].value(flat.model, self.tokens.probe).detach()) for name in mechanisms}

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
        if self.spec.imported is not None:
            self._verify_imported(state)
            return
        expected = self.checkpoints.get(state.step)
        if expected is not None and state_sha256(state) != expected.data_version:
            raise MechError(
                f"replay of run {self.spec.run} does not reach checkpoint {state.step} bit for bit",
                f'replay on the device and with the versions it was trained with (`mech sql "select device, versions from '
                f"runs where run = '{self.spec.run}'\"`)",
            )

    def _verify_imported(self, state: State) -> None:
        """The same of a run from outside, whose state is read where it is."""
        if state.step not in self.checkpoints:
            return
        kept = self.state(state.step)
        if not all(torch.equal(getattr(kept, part), getattr(state, part)) for part in ("theta", "m", "v")):
            raise MechError(
                f"replay of run {self.spec.run} does not reach revision {state.step} bit for bit: it had other kernels",
                "only the ledger has a line for that (replay_mismatch): leave the other stages that replay out",
            )
