"""What a trained run is tried for before anything rests on it: finite states, resuming, no example leaning on its batch."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mech_pipeline.attribution.per_example.capture import example_factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.training.checkpoints import state_sha256
from mech_pipeline.training.device import computing
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.seeds import fixed_torch_generator
from mech_pipeline.training.update.optimizer import State

STATES = 8
"""Kept states that are read, spread evenly, first and last among them."""
EXAMPLES = 8
"""Examples whose gradients are taken together and one by one."""
BATCH_TOLERANCE = 1e-5
"""Float32 sums in another order reach 1e-6; an attention kernel that mixes examples is off by 1e-2 and more."""


@dataclass(frozen=True)
class NotFinite:
    """Where a run's numbers stopped being numbers.

    Attributes:
        states: kept states, of those read, that hold NaN or infinity.
        updates: updates whose loss or gradient norm does.
        read: states read.
    """

    states: tuple[int, ...]
    updates: tuple[int, ...]
    read: int


def not_finite(run: OpenRun) -> NotFinite:
    """Weights and moments of up to STATES kept states, loss and gradient norm of every update."""
    kept = sorted(run.checkpoints)
    count = min(STATES, len(kept))
    chosen = sorted({kept[round(i * (len(kept) - 1) / max(1, count - 1))] for i in range(count)})
    states = tuple(step for step in chosen if not _is_finite(run.state(step)))
    with run.store.reading("training_metrics", of=[run.spec.run]) as connection:
        rows = connection.execute(
            "select distinct step from training_metrics where run = ? and not isfinite(value) order by all",
            [run.spec.run],
        ).fetchall()
    return NotFinite(states, tuple(step for (step,) in rows), len(chosen))


def _is_finite(state: State) -> bool:
    return all(bool(vector.isfinite().all()) for vector in (state.theta, state.m, state.v))


@dataclass(frozen=True)
class Resumed:
    """A stretch of training done again.

    Attributes:
        begin: the kept state it started from.
        end: the next one.
        found: SHA-256 of the state that was reached.
        kept: SHA-256 of the state that training kept there.
    """

    begin: int
    end: int
    found: str
    kept: str

    @property
    def same(self) -> bool:
        """Bit for bit."""
        return self.found == self.kept


def resume(run: OpenRun) -> Resumed | None:
    """Trains the shortest stretch between two kept states again (the last of equally short ones); none if there is none."""
    steps = sorted(run.checkpoints)
    if len(steps) < 2:
        return None
    begin, end = min(pairwise(steps), key=lambda window: (window[1] - window[0], -window[0]))
    with computing(run.spec.training):
        *_, last = run.trainer.updates(run.state(begin), end)
    return Resumed(begin, end, state_sha256(last.after), run.checkpoints[end].data_version)


def batch_dependence(run: OpenRun) -> float:
    """How far ⟨∇ℓ_i, V⟩ of an example depends on who shares its batch, at the last state, for EXAMPLES of the next batch.

    Returns:
        the largest |together − alone| over examples, components and random directions V, relative to the largest |alone|.
    """
    step = max(run.checkpoints)
    with computing(run.spec.training):
        run.trainer.flat.load(run.state(step).theta)
        tokens = run.trainer.tokens(run.trainer.batch(step)[:EXAMPLES])
        return dependence(run.trainer.flat, run.components, tokens)


def dependence(flat: FlatModel, components: Components, tokens: Int[Tensor, "example token"]) -> float:
    """The measure of `batch_dependence` for a model as it is loaded."""
    generator = fixed_torch_generator("batch dependence")
    directions = torch.randn(2, flat.vector.numel(), generator=generator).to(flat.vector)
    contraction = Contraction(flat, components)

    def scores(part: Int[Tensor, "example token"]) -> Float[Tensor, "direction example component"]:
        return contraction(example_factors(flat.model, part, contraction.modules), directions)

    together = scores(tokens)
    alone = torch.cat([scores(example[None]) for example in tokens], dim=1)
    scale = float(alone.abs().max())
    return float((together - alone).abs().max()) / scale if scale > 0 else math.nan


def cells_not_finite(store: Store, table: str, run: str | None = None) -> list[tuple[str, int]]:
    """(run, step) of a table's rows with NaN or infinity in any column.

    Args:
        run: of this run only.
    """
    floats = [c.name for c in TABLES[table].columns if pa.types.is_floating(TABLES[table].schema.field(c.name).type)]
    wrong = " or ".join(f'not isfinite("{name}")' for name in floats)
    with store.reading(table, of=None if run is None else [run]) as connection:
        return connection.execute(
            f"select distinct run, step from {table} where (run = $run or $run is null) and ({wrong}) order by all",
            {"run": run},
        ).fetchall()
