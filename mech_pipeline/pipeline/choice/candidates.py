"""The examples that a recipe may choose from, what it chooses by, and what they are like."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from mech_pipeline.causal.choosing import Examples, Numbers, gzip_ratio, mean_rank
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.choice.wanted import target_of
from mech_pipeline.pipeline.influence.rows import stored_totals
from mech_pipeline.pipeline.influence.start import seen_examples
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import stored_spec
from mech_pipeline.spec.choice import Recipe
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.device import computing
from mech_pipeline.training.model import example_losses

_AT_ONCE = {"cpu": 32, "cuda": 256}
"""Examples of a forward pass. On a CPU what its caches hold: 256 take a fifth longer there, with the same bits."""
_KNOWN = 4
_known_losses: dict[tuple[str, str], Numbers] = {}
"""By version of the state and of the pool, the last few that this process computed."""


@dataclass(frozen=True)
class Source:
    """A run that is chosen by, up to its target step."""

    run: OpenRun
    step: int


@dataclass
class Candidates:
    """Of a recipe of a run.

    Attributes:
        store: where the runs are that it goes by.
        spec: the run that chooses.
    """

    store: Store
    recipe: Recipe
    spec: RunSpec

    @cached_property
    def sources(self) -> list[Source]:
        """The runs that it goes by."""
        found = []
        for name in self.recipe.runs:
            step = target_of(self.store, self.recipe, name, self.spec)
            assert step is not None, "refused otherwise"
            found.append(Source(OpenRun(self.store, stored_spec(self.store, name)), step))
        return found

    @property
    def first(self) -> OpenRun:
        """A run with the pool."""
        return self.sources[0].run

    @cached_property
    def examples(self) -> Examples:
        """What may be chosen: what was seen before the target, of the kinds that are asked for.

        Raises:
            MechError: there is no such kind, or nothing of it.
        """
        one = len(self.sources) == 1
        places = seen_examples(self.first, 0, self.sources[0].step) if one else np.arange(len(self.first.tokens.pool))
        names = self.first.tokens.stored.names
        if unknown := [kind for kind in self.recipe.kinds if kind not in names]:
            raise MechError(f"choose.kinds: no examples of kind {unknown[0]!r}", f"there are {', '.join(names)}")
        codes = [names.index(kind) for kind in self.recipe.kinds or names]
        found: Examples = places[np.isin(self.groups[places], codes)]
        return found

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The kind of every example of the pool, as a number."""
        pool = self.first.tokens.stored
        return np.asarray(pool.group[np.arange(len(pool.group))], dtype=np.int64)

    def scores(self) -> Numbers | None:
        """What the recipe goes by, of every example of the pool; none where it is chance."""
        if self.recipe.by == "random":
            return None
        each = [self._score(source) for source in self.sources]
        return each[0] if len(each) == 1 else mean_rank(each)

    def _score(self, source: Source) -> Numbers:
        if self.recipe.by == "loss":
            return losses(source)
        if self.recipe.by == "gzip_ratio":
            return self.characteristic("gzip_ratio")
        totals = self._totals(source)
        return np.array([totals.get(str(name), 0.0) for name in source.run.tokens.example_ids])

    def _totals(self, source: Source) -> Mapping[str, float]:
        """By example id; examples without count as 0."""
        run, mechanism = source.run, self.recipe.mechanism
        if self.recipe.by == "influence":
            assert mechanism is not None, "filled in when the file was read"
            return stored_totals(run, source.step, mechanism, self.recipe.method)
        if self.recipe.by == "ledger":
            with self.store.reading("ledger") as connection:
                rows = connection.execute(
                    "select example_id, sum(value::double + value_later::double) from ledger where run = ? and "
                    "mechanism = ? and step <= ? and term = 'example' group by 1",
                    [run.spec.run, mechanism, source.step],
                ).fetchall()
            return dict(rows)
        return self._asked(run.spec.run)

    def _asked(self, run: str) -> Mapping[str, float]:
        assert self.recipe.sql is not None, "checked when the file was read"
        found = query(self.store.root, self.recipe.sql.replace("$run", f"'{run}'"))
        if not {"example_id", "score"} <= set(found.columns) or found["score"].null_count():
            raise MechError("choose.sql must give example_id and score, none empty", "name its columns so")
        return dict(zip(found["example_id"].to_list(), found["score"].cast(float).to_list(), strict=True))

    def characteristic(self, name: str) -> Numbers:
        """What examples are like, of every example of the pool: see `choice_balance`."""
        if name == "loss":
            return losses(self.sources[0])
        tokens = self.first.tokens
        if name == "token_frequency":
            return _token_frequency(tokens.pool[np.arange(len(tokens.pool))].numpy(), tokens.vocabulary)
        texts = self._texts
        if name == "length":
            return np.array([float(length) for length, _ in texts])
        return np.array([gzip_ratio(text) for _, text in texts])

    @cached_property
    def _texts(self) -> list[tuple[int, str]]:
        """(tokens before it repeats itself, text) of every example of the pool."""
        with self.store.reading("examples") as connection:
            rows = connection.execute(
                "select example_id, case when period > 0 then period else n_tokens end, text from examples"
            ).fetchall()
        known = {name: (length, text) for name, length, text in rows}
        return [known[str(name)] for name in self.first.tokens.example_ids]

    def generator(self, purpose: str) -> np.random.Generator:
        """Chance of its own for the run and the recipe's seed."""
        return numpy_generator(self.recipe.seed, f"choice:{purpose}:{0 if self.recipe.pooled else self.spec.seed}")


def losses(source: Source) -> Numbers:
    """Mean next-token loss of every example of the pool at the target step, in nats.

    A forward pass over the pool: seconds. Arms that match on loss in runs of one seed ask for the same; a process that chooses
    for several of them computes it once.
    """
    run = source.run
    contents = run.checkpoint_version(source.step), run.artifacts["pool"]
    if contents not in _known_losses:
        found = _losses(run, source.step)
        if len(_known_losses) == _KNOWN:
            del _known_losses[next(iter(_known_losses))]
        _known_losses[contents] = found
    return _known_losses[contents]


def _losses(run: OpenRun, step: int) -> Numbers:
    found = list[NDArray[np.float64]]()
    with computing(run.spec.training), torch.no_grad():
        flat = run.trainer.flat
        flat.load(run.weights(step))
        pool, device = run.tokens.pool, flat.vector.device
        for begin in range(0, len(pool), _AT_ONCE[device.type]):
            tokens = pool[begin : begin + _AT_ONCE[device.type]].to(device)
            found.append(example_losses(flat.model, tokens).double().cpu().numpy())
    return np.concatenate(found)


def _token_frequency(tokens: NDArray[np.int64], vocabulary: int) -> Numbers:
    """Mean over an example's tokens of the logarithm of their share in the pool."""
    counts = np.bincount(tokens.ravel(), minlength=vocabulary)
    logs = np.log(np.maximum(counts, 1) / counts.sum())
    frequency: Numbers = logs[tokens].mean(axis=1)
    return frequency
