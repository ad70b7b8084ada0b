"""A run as the store has it: what is there, and what it was made from. Nothing here loads a model or tokens."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader, BytesIO
from itertools import pairwise

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Version
from mech_pipeline.pipeline.checkpoints import (
    artifact_versions,
    checkpoint_blobs,
    current_checkpoints,
    is_pointer,
    training_fingerprint,
)
from mech_pipeline.pipeline.grid import planned_steps
from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.store import Store
from mech_pipeline.store.tensors import tensor_shapes
from mech_pipeline.training.parts import has_moments


@dataclass
class FoundRun:
    """What fingerprints, plans and `mech status` need to know of a run.

    Attributes:
        training: fingerprint of what every checkpoint is made from.
        artifacts: data version of each tokenised artifact.
        checkpoints: the current checkpoints, by rising step.
        planned: the steps that the experiment's results rest on.
    """

    store: Store
    spec: RunSpec
    training: str = field(init=False)
    artifacts: dict[str, str] = field(init=False)
    checkpoints: dict[int, Version] = field(init=False)
    planned: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        with one_look([self.spec.run]):
            training = training_fingerprint(self.store, self.spec)
            if training is None:
                raise MechError(
                    f"run {self.spec.run} has no tokens", "materialize `tokens` for it, or `mech run` its experiment"
                )
            self.training = training
            self.artifacts = artifact_versions(self.store, self.spec.run)
            self.refresh()

    def refresh(self) -> None:
        """Reads the checkpoint rows and the plan again."""
        with one_look([self.spec.run]):
            self.checkpoints = current_checkpoints(self.store, self.spec)
            self._blobs = checkpoint_blobs(self.store, self.spec.run)
            self.planned = planned_steps(self.store, self.spec)

    @cached_property
    def brings(self) -> frozenset[Need]:
        """What its checkpoints bring: a run that was trained here brings all; an imported one batches where they are named."""
        if self.spec.imported is not None:
            known = {Need.ORDER, Need.POOL} if self.spec.imported.batches is not None else set[Need]()
            return frozenset({Need.WEIGHTS, *self._moments(), *known})
        found = {Need.WEIGHTS} if self.checkpoints else set(Need)  # what is not there yet will be trained
        if "pool" in self.artifacts:
            found |= {Need.POOL, Need.ORDER}
        return frozenset(found.union(self._moments()))

    def windows(self, until: int, also: Iterable[int] = ()) -> list[tuple[int, int]]:
        """Consecutive (checkpoint, next checkpoint) up to `until`, first to last; of an imported run, those with known batches.

        Args:
            also: zoomed states that bound windows as well; the others do not.
        """
        bounds = {*self.planned, *also}
        steps = [step for step in self.checkpoints if step <= until and step in bounds]
        imported = self.spec.imported
        return [window for window in pairwise(steps) if imported is None or imported.knows(*window)]

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

    def content(self, step: int) -> tuple[bytes, str]:
        """The file of a checkpoint, verified against its hash, and what it is in words.

        Raises:
            MechError: it was not made, or its file is missing or corrupt.
        """
        what = f"checkpoint {step} of run {self.spec.run}"
        blob = self._blobs.get(step)
        if blob is None:
            raise MechError(
                f"{what} does not exist", f"`mech run` its experiment; there is {sorted(self._blobs)[:5]} …"
            )
        if is_pointer(blob):
            return self._from_outside(blob, step, what), what
        again = "`mech verify --repair`, then `mech run` the experiment: it is trained again from the one before"
        return self.store.get_blob(blob, what, again), what

    def _moments(self) -> Iterable[Need]:
        """Whether the last checkpoint brings them."""
        if not self.checkpoints:
            return []
        blob = self._blobs[max(self.checkpoints)]
        if is_pointer(blob):
            said = json.loads(self.store.get_blob(blob, "a checkpoint", "`mech verify --repair`"))
            return [Need.MOMENTS] if said.get("moments") == "native" else []
        with self._file(max(self.checkpoints)) as file:
            return [Need.MOMENTS] if has_moments(tensor_shapes(file)) else []

    def _from_outside(self, blob: Blob, step: int, what: str) -> bytes:
        """The state of a revision, read where it is."""
        from mech_pipeline.exchange.suites.reading import revision_state  # loads transformers

        said = json.loads(self.store.get_blob(blob, what, "`mech verify --repair`, then `mech run` the experiment"))
        content = revision_state(self.spec, step)
        if hashlib.sha256(content).hexdigest() != said["sha256"]:
            raise MechError(
                f"{what}: revision {said['revision']} of {said['place']} is not what it was when it was imported",
                "put it back as it was, or run the experiment again: what was measured of it is measured again",
            )
        return content

    def _file(self, step: int) -> BytesIO | BufferedReader:
        """The file of a checkpoint, unchecked: its header says what it holds."""
        path = self.store.files.local_path(self._blobs[step].uri)
        return BytesIO(self.content(step)[0]) if path is None else path.open("rb")
