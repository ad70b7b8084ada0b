"""Ledger and influence for a model and a training loop of your own: no experiment file, no store, no Dagster.

A `TrainingRecord` knows what an update is made of: the model, the tokens of every example, which examples each update
saw, the optimizer, and a few states on the way. Between states training is replayed; where the replay does not reach
the next state, the record does not describe that training, and says so instead of giving numbers.

The loss of an example is its mean next-token loss, the loss of a batch the mean over its examples. Dropout, padding and
mixed precision are not replayed. Models of `transformers` are switched to an attention that can be differentiated twice.
What is frozen, or not given to the optimizer, is a constant of the model: it has no influence and no rows in the ledger.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.attribution.influence.gradient_graph import GradientGraph
from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.reliability import AdjointGrowth, adjoint_growth
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.ledger.ledger import replay_with_factors, window_account
from mech_pipeline.attribution.own_models import freeze_untrained, giving_logits
from mech_pipeline.attribution.per_example.any_model import AnyContraction
from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.attribution.record_account import account_frame, verify_account
from mech_pipeline.attribution.replay_check import ReplayCheck
from mech_pipeline.attribution.torch_optimizer import moments_of, optimizer_spec
from mech_pipeline.data.order import GivenOrder
from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.update.optimizer import State, Vector

T = TypeVar("T", Vector, float)
Readout = Callable[[nn.Module], Float[Tensor, ""]]
"""model → a differentiable number; up means more formed."""


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
        tokens, order = _checked(tokens, order, spec)
        self._source = dict(model.named_parameters())
        copied = giving_logits(model, tokens[:2])
        freeze_untrained(copied, model, optimizer, tokens[order[0]])
        training = Training(steps=len(order), batch=order.shape[1])
        given = GivenOrder(order.numpy())
        self._trainer = Trainer(FlatModel(copied), spec, training, tokens, 0, "record", order=given)
        self._states: dict[int, State] = {}

    @property
    def flat(self) -> FlatModel:
        """The copy of the model, its parameters as one vector."""
        return self._trainer.flat

    def keep(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Keeps the state after `step` updates, in the middle of training: the model's and the optimizer's tensors."""
        self.add(step, {n: p.detach() for n, p in self._source.items()}, moments_of(optimizer, self._source))

    def add(self, step: int, weights: dict[str, Tensor], moments: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Keeps a state from files: weights by name, and (first, second) moment by name (empty at step 0).

        Raises:
            MechError: there is no such step, or a parameter is missing.
        """
        if not 0 <= step <= self._trainer.training.steps:
            raise MechError(f"there is no step {step}", f"the order has {self._trainer.training.steps} updates")
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
        replayer = Replayer(
            self._trainer, self._state, lambda at: self._check(at).verify(at), lambda at: self._check(at).is_close(at)
        )
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
            MechError: see `influence`; also an account that does not balance.
        """
        components = self._components()
        contraction = AnyContraction(self._trainer, components, self._trainer.batch(0))
        exact, carry, frames = self._exact_value(readout), None, []
        for begin, end in reversed(self._windows(step)):
            updates, known = replay_with_factors(self._trainer, self._state(begin), end, contraction.modules)
            self._check(updates[-1].after).verify(updates[-1].after)
            change = exact(updates[-1].after.theta) - exact(updates[0].before.theta)
            unit = self._unit(readout, updates, change)
            account = window_account(
                self._trainer.optimizer,
                components,
                contraction,
                _divided(partial(self._gradient_at, readout), unit),
                updates,
                list(zip(updates, known, strict=True)),
                None if carry is None else carry / unit,
                _divided(exact, unit),
            )
            verify_account(account, change, unit)
            carry = account.carry * unit
            frames.append(account_frame(account, components.names, unit))
        return pl.concat(frames[::-1])

    def _unit(self, readout: Readout, updates: Sequence[Update], change: float) -> float:
        """What counts as 1 in a window, because tolerances are absolute and readouts are of any size.

        The movement of the readout, or what its parts would have made without cancelling: float32 resolves no less.
        """
        first, last = updates[0].before.theta, updates[-1].after.theta
        parts = [
            float(torch.linalg.vector_norm(self._gradient_at(readout, at) * (last - first))) for at in (first, last)
        ]
        return max(abs(change), *parts) or 1.0

    def _exact_value(self, readout: Readout) -> Callable[[Vector], float]:
        """The readout in double precision, as a function of the weights."""
        exact = FlatModel(copy.deepcopy(self.flat.model).double())

        def value(theta: Vector) -> float:
            exact.load(theta.double())
            try:
                found = float(readout(exact.model).detach())
            except RuntimeError as error:
                raise MechError(
                    f"the model or the readout does not compute in float64: {' '.join(str(error).split())[:200]}",
                    "tensors that they make should take the dtype of what they meet, for example direction.to(logits)",
                ) from error
            if not math.isfinite(found):
                raise MechError(f"the readout is {found}", "it must be a finite number at every state")
            return found

        return value

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
            label = slot.name.rpartition(".")[0] or slot.name  # a bare parameter of the model itself
            index[slot.begin : slot.end] = names.setdefault(label, len(names))
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

    def _check(self, replayed: State) -> ReplayCheck:
        """What a replayed state is compared with."""
        before = self._states[max(step for step in self._states if step < replayed.step)]
        return ReplayCheck(self._trainer.optimizer, before, self._states[replayed.step])


def _checked(
    tokens: Int[Tensor, "example token"], order: Int[Tensor, "update place"], optimizer: Optimizer
) -> tuple[Int[Tensor, "example token"], Int[Tensor, "update place"]]:
    """Both on the CPU as int64.

    Raises:
        MechError: they are not of that shape, or do not belong to each other or to the learning rates.
    """
    if tokens.dim() != 2 or order.dim() != 2 or tokens.is_floating_point() or order.is_floating_point():
        raise MechError(
            f"tokens of shape {tuple(tokens.shape)} and order of shape {tuple(order.shape)} are not a record",
            "give token ids [example, token] and indices of examples [update, place]",
        )
    if not order.numel() or int(order.min()) < 0 or int(order.max()) >= len(tokens):
        raise MechError(f"the order names other examples than the {len(tokens)} there are", "count examples from 0")
    if optimizer.rates and len(optimizer.rates) != len(order):
        raise MechError(
            f"there are {len(optimizer.rates)} learning rates for {len(order)} updates", "give one for each update"
        )
    return tokens.cpu().long(), order.cpu().long()


def _divided(function: Callable[[Vector], T], unit: float) -> Callable[[Vector], T]:
    """The same function in another unit."""
    return lambda theta: function(theta) / unit
