"""A run as the store keeps it, opened for people who look: in a notebook, in a script, in a Python prompt.

    run = mech_pipeline.open("induction.baseline.s0")
    model = run.model(600)                                    a TransformerBridge around the weights of a checkpoint
    _, cache = model.run_with_cache(run.probe("induction_copy_advantage").tokens)

What is costly is loaded when it is first asked for: tables need no PyTorch, the first model takes seconds of imports.
Nothing here writes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from mech_pipeline.errors import MechError, unknown
from mech_pipeline.pipeline.checkpoints import checkpoint_blobs
from mech_pipeline.pipeline.run_row import stored_spec
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.files.open import existing_files
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.example import Example, find_example
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from mech_pipeline.pipeline.run import OpenRun
    from mech_pipeline.training.bridge_type import TransformerBridge


@dataclass(frozen=True)
class KeptExample(Example):
    """An example with its token ids, [token]."""

    tokens: "Tensor"


@dataclass
class KeptRun:
    """One run.

    Attributes:
        spec: what was asked for, resolved.
    """

    store: Store
    spec: RunSpec

    @classmethod
    def of(cls, run: str, root: str) -> "KeptRun":
        """The run of this name; see `mech_pipeline.open`."""
        store = Store(existing_files(root).root)
        return cls(store, stored_spec(store, run))

    def __repr__(self) -> str:
        steps = self.steps
        kept = f"{len(steps)} checkpoints, {steps[0]} to {steps[-1]}" if steps else "no checkpoints"
        return f"<run {self.spec.run}: {kept}, store {self.store.root}>"

    @property
    def steps(self) -> list[int]:
        """The steps of which a checkpoint is kept, rising."""
        return sorted(checkpoint_blobs(self.store, self.spec.run))

    def model(self, step: int) -> "TransformerBridge":
        """The model as it was at a checkpoint, on the CPU: TransformerLens' hooks and caches, logits from token ids.

        Every call gives a model of its own, so that two checkpoints can be compared; a toy model takes some 0.1 s.

        Raises:
            MechError: no such state is kept, or its file is missing or damaged.
        """
        if step not in self.steps:
            raise self._not_kept(step)
        return self._opened.bridged_at(step)

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The run's tokenizer: `run.tokenizer.encode(text).ids`, `run.tokenizer.decode(ids)`."""
        origin = self._opened.tokens.probe.origin
        assert origin is not None, "the probe of a stored run knows what it was made with"
        return origin.tokenizer

    def probe(self, mechanism: str) -> Any:
        """The probe data of a mechanism, just as its readout gets them; never trained on.

        Raises:
            MechError: no mechanism has that name.
        """
        from mech_pipeline.mechanisms.registry import MECHANISMS

        if mechanism not in MECHANISMS:
            raise unknown("mechanism", mechanism, sorted(MECHANISMS))
        return self._opened.tokens.probe.of(mechanism, MECHANISMS[mechanism].data)

    def example(self, example_id: str) -> KeptExample:
        """A training example of the run: text, place in its document, token ids, and which updates saw it.

        Args:
            example_id: its id, or the beginning of it.

        Raises:
            MechError: no example of the run has that id.
        """
        found = find_example(self.store.root, example_id, self.spec.run)
        tokens = self._opened.tokens
        places = (tokens.example_ids == found.example_id).nonzero()[0]
        if not len(places):
            raise MechError(f"example {found.example_id} is not of run {self.spec.run}", "open a run that saw it")
        return KeptExample(**vars(found), tokens=tokens.pool[int(places[0])])

    def frame(self, table: str) -> pl.DataFrame:
        """The run's rows of a table (`mech tables` lists them); of a table without runs, all rows.

        Raises:
            MechError: there is no such table.
        """
        if table not in TABLES:
            raise unknown("table", table, TABLES)
        where = " where run = $run" if TABLES[table].per_run else ""
        with connect(self.store.root, [table]) as connection:
            params = {"run": self.spec.run} if where else {}
            return connection.sql(f'from "{table}"{where} order by all', params=params).pl()

    @cached_property
    def _opened(self) -> "OpenRun":
        from mech_pipeline.pipeline.run import OpenRun

        return OpenRun(self.store, self.spec)

    def _not_kept(self, step: int) -> MechError:
        kept = self.steps
        if not kept:
            return MechError(f"run {self.spec.run} has no checkpoints", "`mech run` its experiment")
        around = [max((s for s in kept if s < step), default=None), min((s for s in kept if s > step), default=None)]
        near = " and ".join(str(each) for each in around if each is not None)
        return MechError(
            f"step {step} of run {self.spec.run} is not kept; nearest: {near}",
            f"`mech zoom {self.spec.run} {step}:{step}` keeps it"
            if 0 <= step <= self.spec.training.steps
            else "see run.steps",
        )
