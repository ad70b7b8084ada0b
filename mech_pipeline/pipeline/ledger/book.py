"""Computes the accounts of windows and keeps their rows until they are flushed."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mech_pipeline.attribution.ledger.balance import checks
from mech_pipeline.attribution.ledger.ledger import Account, movement, replay_with_factors, window_account
from mech_pipeline.attribution.ledger.mismatch import Mismatch, replay_mismatch
from mech_pipeline.attribution.ledger.quadrature import Place
from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.target_tokens import target_scores
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.ledger.balance import LedgerImbalance
from mech_pipeline.pipeline.ledger.rows import account_columns, token_columns, with_mismatch
from mech_pipeline.pipeline.ledger.wanted import CODE_VERSION
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.analysis import WEIGHTS
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Update
from mech_pipeline.training.model import build_model
from mech_pipeline.training.update.optimizer import State, Vector

OnBalance = Callable[[list[dict[str, Any]]], None]


class Seam(NamedTuple):
    """What a window tells the one before it of a mechanism: a' and the mechanism itself at the state between them."""

    carry: Vector
    state: Place


class Book:
    """Computes accounts and keeps their rows until they are flushed."""

    def __init__(self, run: OpenRun, fingerprints: dict[Cell, str], on_balance: OnBalance) -> None:
        self.on_balance = on_balance
        self._run = run
        self._fingerprints = fingerprints
        self._contraction = Contraction(run.trainer.flat, run.ledger_components)
        tokens = run.tokens
        model = build_model(run.spec.model, tokens.vocabulary, tokens.pool.shape[1], run.spec.seed)
        self._exact = FlatModel(model.double())
        self.unwritten: list[int] = []
        self._accounts: list[Block] = []
        self._tokens: list[Block] = []
        self._balances: list[Block] = []

    def window(self, begin: int, end: int, following: Mapping[str, Seam], write: bool) -> dict[str, Seam]:
        """The accounts of one window; returns what the window before needs of each mechanism.

        Args:
            following: what the window right after it returned; empty: nothing comes after.
        """
        run = self._run
        updates, factors = replay_with_factors(run.trainer, run.state(begin), end)
        published = self._published(updates[-1].after)
        result: dict[str, Seam] = {}
        for name in run.spec.accounts:
            later = following.get(name)
            gradient = self._gradient(name, updates, published)
            value = None if name == WEIGHTS else partial(self._exact_value, name)
            account = window_account(
                run.spec.optimizer,
                run.ledger_components,
                self._contraction,
                gradient,
                updates,
                factors,
                None if later is None else later.carry,
                value,
                self._by_token if run.spec.ledger_by.tokens else None,
                # Where the weights move is the window's own; and a replay that ended elsewhere does not meet the next window.
                None if later is None or name == WEIGHTS or published is not None else later.state,
            )
            result[name] = Seam(account.carry, account.begin)
            if write:
                away = None
                if published is not None:
                    away = replay_mismatch(run.ledger_components, gradient, updates[-1], published, value)
                self._keep(name, end, account, away)
        if write:
            self.unwritten.append(end)
        return result

    def flush(self) -> list[int]:
        """Publishes the kept accounts; returns their steps. The balance is written first: no account without its check.

        Raises:
            LedgerImbalance: a window does not balance; nothing of the batch is published.
        """
        steps = self.unwritten
        balances = [block.rows().to_pylist()[0] for block in self._balances]
        self.on_balance(balances)
        for row in balances:
            if not all(checks(row).values()):
                raise LedgerImbalance(row)
        for blocks in (self._balances, self._tokens, self._accounts):
            if blocks:
                write(self._run.store, blocks, CODE_VERSION)
        self.unwritten, self._accounts, self._tokens, self._balances = [], [], [], []
        return steps

    def _published(self, replayed: State) -> Vector | None:
        """The weights at a window's end, where the replay of a run from outside ended elsewhere.

        Raises:
            MechError: the run was trained here, and the replay ended elsewhere.
        """
        run = self._run
        if run.spec.imported is None:
            run.verify(replayed)
            return None
        kept = run.weights(replayed.step)
        return None if torch.equal(kept, replayed.theta) else kept

    def _gradient(self, name: str, updates: list[Update], published: Vector | None) -> Callable[[Vector], Vector]:
        """∇M as a function of θ; of the weights themselves, the window's net movement (`movement`)."""
        if name == WEIGHTS:
            end = updates[-1].after.theta if published is None else published
            along = movement(self._run.ledger_components, updates[0].before.theta, end)
            return lambda theta: along
        flat, probe = self._run.trainer.flat, self._run.tokens.probe

        def at(theta: Vector) -> Vector:
            flat.load(theta)
            return mechanism_gradient(name, flat, probe)

        return at

    def _by_token(self, made: Update, factors: Factors, direction: Vector) -> Tensor:
        """The meanings of "token" that the run asks for, in their order."""
        trainer, found = self._run.trainer, []
        for meaning in self._run.spec.ledger_by.tokens:
            if meaning == "position":
                found.append(self._contraction.per_token(factors, direction[None])[0])
            else:
                trainer.flat.load(made.before.theta)
                found.append(self._by_target(made, direction))
        return torch.stack(found)

    def _by_target(self, made: Update, direction: Vector) -> Tensor:
        """⟨∇ w_i ℓ_ij, V⟩ / (B (T−1)), [example, target]."""
        trainer = self._run.trainer
        scores = target_scores(trainer.flat, trainer.tokens(made.examples), direction) / len(made.examples)
        weights = trainer.weights_at(made.before.step, made.examples)
        return scores if weights is None else scores * weights[:, None]

    def _exact_value(self, name: str, theta: Vector) -> float:
        """M in double precision."""
        self._exact.load(theta.double())
        with torch.no_grad():
            return float(MECHANISMS[name].value(self._exact.model, self._run.tokens.probe))

    def _keep(self, name: str, end: int, account: Account, away: Mismatch | None) -> None:
        run = self._run
        cell = Cell("ledger", run.spec.run, end, name)
        made_from = self._fingerprints[cell]
        columns = account_columns(account, run.ledger_components.names, run.tokens.example_ids)
        if away is not None:
            columns = with_mismatch(columns, away, run.ledger_components.names, end)
        block = Block(cell, columns, made_from).hashed()
        self._accounts.append(block)
        if account.tokens is not None:
            for index, meaning in enumerate(run.spec.ledger_by.tokens):
                tokens = token_columns(account, index, meaning, run.tokens.example_ids)
                self._tokens.append(Block(cell.of("ledger_tokens"), tokens, made_from))
        balance = {
            "change": self._change(account, away, end),
            "explained": float(columns["value"].to_numpy().astype(np.float64).sum()),
            "updates": len(account.updates),
            "gross": account.gross + (0.0 if away is None else abs(float(away.by_component.sum()))),
            "update_error": account.update_error,
            "example_error": account.example_error,
        }
        listed = {column: [value] for column, value in balance.items()}
        self._balances.append(Block(cell.of("ledger_balance"), listed, made_from, block.version))

    def _change(self, account: Account, away: Mismatch | None, end: int) -> float:
        """The mechanism's true change over a window; of the weights, how far they moved, summed over components."""
        if account.change is not None:
            return account.change + (0.0 if away is None or away.change is None else away.change)
        last = account.updates[-1].after.theta if away is None else self._run.weights(end)
        moved = last.double() - account.updates[0].before.theta.double()
        return float(self._run.ledger_components.norms(moved).sum())
