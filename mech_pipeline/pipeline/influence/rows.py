"""Rows of `influence`, `influence_tokens` and `reliability`; reliability is written first: no score without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from mech_pipeline.attribution.ledger.token_grid import on_grid
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.influence.score_rows import ExampleScores
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.tables.all import EVERYTHING

WHOLE_SWEEP = -1
WHOLE = (EVERYTHING,)
Metric = tuple[str, int, float]
"""(name, update step or WHOLE_SWEEP, value)."""


@dataclass(frozen=True)
class Scored:
    """Everything that is stored of one estimator on one target.

    Attributes:
        components: names of the scores' parts; (EVERYTHING,) if they are whole.
        tokens: scores by target token, if they are wanted.
        standard_errors: of weight times influence of every example of the pool, if the method knows them.
        horizon: first update whose scores may be trusted, if any may.
        trusted: whether those from the horizon on may be; none: it was not measured.
        measured_since: first update that `trusted` speaks of; a no holds for all before it as well.
    """

    step: int
    mechanism: str
    method: str
    scores: ExampleScores
    components: tuple[str, ...]
    metrics: Sequence[Metric]
    horizon: int
    trusted: bool | None
    measured_since: int = 0
    tokens: ExampleScores | None = None
    standard_errors: Float[np.ndarray, " pool"] | None = None

    def reliable(self, update_step: np.ndarray) -> pa.Array:
        """Of each row: false outside the horizon or where nothing is trusted; empty where it was not measured."""
        if self.trusted is False:
            return pa.repeat(pa.scalar(False), len(update_step))
        inside = update_step >= self.horizon
        unknown = inside & ((self.trusted is None) | (update_step < self.measured_since))
        return pa.array(inside, mask=unknown)


def write_scored(run: OpenRun, scored: Scored, made_from: str, code_version: str) -> None:
    """Publishes one estimator's scores on one target."""
    cell = Cell("influence", run.spec.run, scored.step, scored.mechanism, scored.method)
    metrics: dict[str, Any] = {
        "metric": [name for name, _, _ in scored.metrics],
        "update_step": [step for _, step, _ in scored.metrics],
        "value": [value for _, _, value in scored.metrics],
    }
    write(run.store, [Block(cell.of("reliability"), metrics, made_from)], code_version)
    if scored.tokens is not None:
        positions = np.arange(1, scored.tokens.values.shape[1] + 1)
        columns = scored.tokens.columns(run.tokens.example_ids) | {"token_position": scored.tokens.parts(positions)}
        tokens = Cell("influence_tokens", run.spec.run, scored.step, scored.mechanism)
        write(run.store, [Block(tokens, columns, made_from)], code_version)
    columns = scored.scores.columns(run.tokens.example_ids)
    columns |= {
        "component": scored.scores.parts(scored.components),
        "reliable": scored.reliable(columns["update_step"].to_numpy()),
        "weight": pa.array(np.repeat(weights_of(run, scored.scores), len(scored.components)).astype(np.float32)),
    }
    if scored.standard_errors is not None:
        known = np.repeat(scored.standard_errors[scored.scores.example], len(scored.components))
        columns["standard_error"] = pa.array(known.astype(np.float32))
    write(run.store, [Block(cell, columns, made_from)], code_version)


def weights_of(run: OpenRun, scores: ExampleScores) -> Float[np.ndarray, " row"]:
    """What each pair's example weighed in training, at that update."""
    weights = run.tokens.weights
    if weights is None:
        return np.ones(len(scores.example))
    return weights.at(scores.update_step, torch.from_numpy(scores.example)).numpy()


def stored_totals(run: OpenRun, step: int, mechanism: str, method: str) -> dict[str, float]:
    """Weight times influence of every example by id, over all its updates: minus this is the prediction without it."""
    with run.store.reading("influence") as connection:
        rows = connection.execute(
            "select example_id, sum(weight::double * value) from influence where run = ? and step = ? and mechanism = ? "
            "and method = ? group by 1",
            [run.spec.run, step, mechanism, method],
        ).fetchall()
    return dict(rows)


def gridded(tokens: ExampleScores) -> ExampleScores:
    """Token scores as they are stored."""
    return ExampleScores(tokens.update_step, tokens.example, on_grid(tokens.values))
