"""Ledger and influence for a model and a training loop of your own: no experiment file, no store, no Dagster.

A `TrainingRecord` knows what an update is made of: the model, the tokens of every example, which examples each update
saw, the optimizer, and a few states on the way. Between states training is replayed; where the replay does not reach
the next state, the record does not describe that training, and says so instead of giving numbers.

The loss of an example is its mean next-token loss, the loss of a batch the mean over its examples. Dropout, padding and
mixed precision are not replayed. Models of `transformers` are switched to an attention that can be differentiated twice.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.attribution.influence.gradient_graph import GradientGraph
from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.reliability import AdjointGrowth, adjoint_growth
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.ledger.ledger import Account, replay_with_factors, window_account
from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.torch_optimizer import moments_of, optimizer_spec
from mech_pipeline.data.order import GivenOrder
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.kernels import MATH_ATTENTION
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State, Vector

Readout = Callable[[nn.Module], Float[Tensor, ""]]
"""model → a differentiable number; up means more formed."""
REPLAY_TOLERANCE = 1e-3
"""Largest distance of a replayed state from the recorded one, relative to how far the window moved: other kernels and the
order of sums leave 1e-6 to 1e-4; a wrong batch, rate or dropout leaves 1e-2 and more."""


def giving_logits(model: nn.Module) -> nn.Module:
    """A copy from token ids to logits, for models whose result has `logits`; parameters keep their names."""
    mine: Any = copy.deepcopy(model).eval()
    if hasattr(mine, "set_attn_implementation"):
        mine.set_attn_implementation(MATH_ATTENTION)
    kind: Any = type(mine)
    positions = "position_ids" in inspect.signature(kind.forward).parameters

    class Bare(kind):
        def forward(self, tokens: Tensor) -> Tensor:
            # Positions of every example of its own: one row for all of them would have one gradient for all of them.
            places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
            result = kind.forward(self, tokens, **({"position_ids": places} if positions else {}))
            return getattr(result, "logits", result)

    mine.__class__ = Bare
    return mine


@dataclass(frozen=True)
class RecordedInfluence:
    """Influence on one readout at one step.

    Attributes:
        scores: update_step, example (place in `tokens`), value; with tokens also token_position (whose loss it is).
        growth: adjoint growth, and the horizon before which scores are not to be trusted.
    """

    scores: pl.DataFrame
    growth: AdjointGrowth


class TrainingRecord:
    """What there is to know of a training run.

    Args:
        model: token ids → logits, or a model of `transformers`; it is copied.
        tokens: token ids of all examples, of one length.
        order: which examples each update saw; a row per update.
        optimizer: the `torch.optim` optimizer that trains, or its description.
        learning_rates: of every update, if a scheduler changes it.
        clip_norm: largest norm of the batch gradient, if it is clipped.

    Raises:
        MechError: an optimizer or a setting whose updates cannot be replayed.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: Int[Tensor, "example token"],
        order: Int[Tensor, "update place"],
        optimizer: torch.optim.Optimizer | Optimizer,
        learning_rates: Sequence[float] = (),
        clip_norm: float | None = None,
    ) -> None:
        spec = (
            optimizer
            if isinstance(optimizer, Optimizer)
            else optimizer_spec(optimizer, learning_rates=learning_rates, clip_norm=clip_norm)
        )
        self._source = dict(model.named_parameters())
        training = Training(steps=len(order), batch=order.shape[1])
        given = GivenOrder(order.cpu().numpy())
        self._trainer = Trainer(FlatModel(giving_logits(model)), spec, training, tokens.cpu(), 0, "record", order=given)
        self._states: dict[int, State] = {}

    @property
    def flat(self) -> FlatModel:
        """The copy of the model, its parameters as one vector."""
        return self._trainer.flat

    def keep(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Keeps the state after `step` updates, in the middle of training: the model's and the optimizer's tensors."""
        self.add(step, {n: p.detach() for n, p in self._source.items()}, moments_of(optimizer, self._source))

    def add(self, step: int, weights: dict[str, Tensor], moments: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Keeps a state from files: weights by name, and (first, second) moment by name (empty at step 0)."""
        flat, found = self.flat, {"theta": [], "m": [], "v": []}  # type: ignore[var-annotated]
        for slot in flat.slots:
            name = slot.name
            if name not in weights or tuple(weights[name].shape) != slot.shape:
                raise MechError(
                    f"the state at step {step} has no parameter {name} of shape {slot.shape}", "is it of this model?"
                )
            zero = torch.zeros_like(weights[name])
            first, second = moments.get(name, (zero, zero))
            for field, tensor in (("theta", weights[name]), ("m", first), ("v", second)):
                found[field].append(tensor.detach().reshape(-1))
        vectors = {field: torch.cat(parts).to(flat.vector, copy=True) for field, parts in found.items()}
        self._states[step] = State(step, vectors["theta"], vectors["m"], vectors["v"])

    def influence(self, readout: Readout, step: int, *, tokens: bool = False) -> RecordedInfluence:
        """∂readout(θ_step)/∂w of every example at every update since the first recorded state.

        Raises:
            MechError: the step was not kept, the readout is not differentiable, or training is not what was recorded.
        """
        target = Target("readout", step, self._gradient(readout, step))
        last = self._windows(step)[-1][0]
        examples = self._trainer.batch(last)
        GradientGraph(self._trainer, self._state(last).theta, examples, last).check_twice_differentiable()
        replayer = Replayer(self._trainer, self._state, self._check, self._is_close)
        windows = [partial(replayer.window, begin, end) for begin, end in reversed(self._windows(step))]
        parts = list(influence_sweep(self._trainer, [target], windows))
        norm = float(target.gradient.double().norm())
        growth = adjoint_growth([(part.step, part.adjoint_norm) for part in parts], norm)
        columns: dict[str, Any] = {
            "update_step": np.repeat([p.step for p in parts], [len(p.scores) for p in parts]),
            "example": np.concatenate([p.made.examples.numpy() for p in parts]),
            "value": np.concatenate([p.scores.cpu().numpy() for p in parts]),
        }
        if tokens:
            scores = np.concatenate([p.tokens.cpu().numpy() for p in parts])
            width = scores.shape[1]
            columns = {name: np.repeat(columns[name], width) for name in ("update_step", "example")}
            columns |= {"token_position": np.tile(np.arange(1, width + 1), len(scores)), "value": scores.reshape(-1)}
        return RecordedInfluence(pl.DataFrame(columns), growth)

    def ledger(self, readout: Readout, step: int) -> pl.DataFrame:
        """What happened to the readout between the first recorded state and `step`.

        Returns:
            update_step, term (example, weight_decay, momentum), example, component, value, value_later; all values of one
            window sum to the readout's change in it.

        Raises:
            MechError: see `influence`; also a layer whose per-example gradients are not known.
        """
        components = self._components()
        contraction, carry, frames = Contraction(self.flat, components), None, []
        for begin, end in reversed(self._windows(step)):
            updates, factors = replay_with_factors(self._trainer, self._state(begin), end)
            self._check(updates[-1].after)
            at = partial(self._gradient_at, readout)
            account = window_account(self._trainer.optimizer, components, contraction, at, updates, factors, carry)
            carry = account.carry
            frames.append(_frame(account, components.names))
        return pl.concat(frames[::-1])

    def _components(self) -> Components:
        """Heads and layers of the known architectures; of others, each module."""
        config = getattr(self.flat.model, "config", None)
        heads = getattr(config, "num_attention_heads", None)
        with suppress(ValueError):
            if heads is not None:
                return components_of(self.flat, heads, getattr(config, "num_key_value_heads", None))
        names: dict[str, int] = {}
        index = torch.empty(len(self.flat.vector), dtype=torch.int64, device=self.flat.vector.device)
        for slot in self.flat.slots:
            index[slot.begin : slot.end] = names.setdefault(slot.name.rpartition(".")[0], len(names))
        return Components(tuple(names), index)

    def _gradient(self, readout: Readout, step: int) -> Vector:
        return self._gradient_at(readout, self._state(step).theta)

    def _gradient_at(self, readout: Readout, theta: Vector) -> Vector:
        self.flat.load(theta)
        value = readout(self.flat.model)
        if value.dim() != 0 or not value.requires_grad:
            raise MechError(
                "the readout is not a differentiable scalar", "return one number without .item(), .detach() or argmax"
            )
        return self.flat.gradient(value)

    def _windows(self, step: int) -> list[tuple[int, int]]:
        self._state(step)
        steps = sorted(s for s in self._states if s <= step)
        if len(steps) < 2:
            raise MechError(f"nothing was kept before step {step}", "keep the state at step 0 as well")
        return list(pairwise(steps))

    def _state(self, step: int) -> State:
        if step not in self._states:
            raise MechError(f"no state was kept at step {step}", f"there is {sorted(self._states)}")
        return self._states[step]

    def _distance(self, state: State) -> float:
        kept = self._states[state.step]
        before = self._states[max(s for s in self._states if s < state.step)]
        moved = torch.linalg.vector_norm((kept.theta - before.theta).double())
        return float(torch.linalg.vector_norm((state.theta - kept.theta).double()) / moved)

    def _is_close(self, state: State) -> bool:
        return self._distance(state) <= REPLAY_TOLERANCE

    def _check(self, state: State) -> None:
        if not self._is_close(state):
            raise MechError(
                f"replaying the record does not reach the state kept at step {state.step}: off by "
                f"{self._distance(state):.1e} of the window's movement",
                "check the order of examples, learning rates, clipping, dropout and precision",
            )


def _frame(account: Account, components: tuple[str, ...]) -> pl.DataFrame:
    """An account as rows."""
    updates, batch, parts = account.examples.shape
    steps = np.array([made.before.step for made in account.updates])
    examples = np.concatenate([made.examples.numpy() for made in account.updates])

    def rows(term: str, update_step: np.ndarray, example: Any, value: Tensor, later: Tensor) -> pl.DataFrame:
        count = value.numel()
        return pl.DataFrame(
            {
                "update_step": np.repeat(update_step, count // len(update_step)),
                "term": [term] * count,
                "example": pl.Series(example, dtype=pl.Int64),
                "component": list(components) * (count // parts),
                "value": value.flatten().cpu().numpy(),
                "value_later": later.flatten().cpu().numpy(),
            }
        )

    of_examples = np.repeat(examples, parts)
    decay, momentum = [None] * (updates * parts), [None] * parts
    return pl.concat(
        [
            rows("example", np.repeat(steps, batch), of_examples, account.examples, account.examples_later),
            rows("weight_decay", steps, decay, account.weight_decay, account.weight_decay_later),
            rows("momentum", steps[:1], momentum, account.momentum, torch.zeros_like(account.momentum)),
        ]
    )
