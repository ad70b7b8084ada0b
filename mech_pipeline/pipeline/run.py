"""A run opened for work: its tokens, a trainer, its checkpoints. Shared by training, analysis and attribution."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from mech_pipeline.attribution.components import Components, components_of
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.tokens import Tokens, load_tokens
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.catalog import connect
from mech_pipeline.store.currency import Version, stored_versions
from mech_pipeline.store.store import Store
from mech_pipeline.training.checkpoints import state_sha256, unpack_state
from mech_pipeline.training.device import training_device
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.model import build_model
from mech_pipeline.training.optimizer import State
from mech_pipeline.training.ranks import Ranks

TRAINING_VERSION = "1"


def artifact_versions(store: Store, run: str) -> dict[str, str]:
    """Data version of each tokenised artifact of a run."""
    return {item: version.data_version for (_, item), version in stored_versions(store, "tokens", run).items()}


def training_fingerprint(store: Store, spec: RunSpec) -> str | None:
    """What every checkpoint of the run is made from; none while its tokens are not made."""
    pool = artifact_versions(store, spec.run).get("pool")
    return None if pool is None else fingerprint("training", TRAINING_VERSION, spec.training_slice(), pool)


def checkpoint_fingerprint(training: str, step: int) -> str:
    """What one checkpoint is made from."""
    return fingerprint(training, step)


def current_checkpoints(store: Store, spec: RunSpec) -> dict[int, Version]:
    """The run's checkpoints that are current and whose files are there."""
    training = training_fingerprint(store, spec)
    if training is None:
        return {}
    stored = stored_versions(store, "checkpoints", spec.run)
    blobs = _checkpoint_blobs(store, spec.run)
    there = {(entry.name, entry.bytes) for entry in store.files.entries(f"blobs/checkpoints/run={spec.run}")}
    return {
        step: version
        for (step, _), version in sorted(stored.items())
        if version.input_fingerprint == checkpoint_fingerprint(training, step)
        and (blobs[step].uri, blobs[step].bytes) in there
    }


def _checkpoint_blobs(store: Store, run: str) -> dict[int, Blob]:
    with connect(store.root, ["checkpoints"]) as connection:
        rows = connection.execute("select step, uri, bytes, sha256 from checkpoints where run = ?", [run]).fetchall()
    return {row[0]: Blob(*row[1:]) for row in rows}


@dataclass
class OpenRun:
    """Everything that stages share. What is costly (tokens, model) is loaded when first asked for.

    Attributes:
        training: fingerprint of what every checkpoint is made from.
        artifacts: data version of each tokenised artifact.
        checkpoints: the current checkpoints, by rising step.
        ranks: the processes that train it together; everything else is done by one.
    """

    store: Store
    spec: RunSpec
    ranks: Ranks = field(default_factory=Ranks)
    training: str = field(init=False)
    artifacts: dict[str, str] = field(init=False)
    checkpoints: dict[int, Version] = field(init=False)

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
        flat = FlatModel(model.to(training_device(spec.training)))
        return Trainer(flat, spec.optimizer, spec.training, tokens.pool, spec.seed, spec.run, ranks=self.ranks)

    @cached_property
    def components(self) -> Components:
        """Components of the model."""
        return components_of(self.trainer.flat, self.spec.model.heads)

    def refresh(self) -> None:
        """Reads the checkpoint rows again."""
        self.checkpoints = current_checkpoints(self.store, self.spec)
        self._blobs = _checkpoint_blobs(self.store, self.spec.run)

    def state(self, step: int) -> State:
        """A checkpoint, verified against its hash.

        Raises:
            MechError: it was not made, or its file is missing or corrupt.
        """
        what = f"checkpoint {step} of run {self.spec.run}"
        blob = self._blobs.get(step)
        if blob is None:
            raise MechError(
                f"{what} does not exist", f"`mech run` its experiment; there is {sorted(self._blobs)[:5]} …"
            )
        again = "`mech verify --repair`, then `mech run` the experiment: it is trained again from the one before"
        content = self.store.get_blob(blob, what, again)
        return unpack_state(content, step, self.trainer.flat, what)

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

    def windows(self, until: int) -> list[tuple[int, int]]:
        """Consecutive (checkpoint, next checkpoint) up to `until`, first to last."""
        steps = [step for step in self.checkpoints if step <= until]
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


def provenance_columns(count: int, input_fingerprint: str, data_version: str) -> dict[str, list[str]]:
    """The two provenance columns of a block of rows."""
    return {"input_fingerprint": [input_fingerprint] * count, "data_version": [data_version] * count}
