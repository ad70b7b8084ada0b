"""One training run, fully resolved, and what each stage of it depends on.

A run id is `<experiment>.<arm>.s<seed>`; its identity is the fingerprint of its resolved spec together with the
content of its corpus. Stage fingerprints hold only what that stage depends on: changing a formation threshold
leaves tokens, training and analysis untouched.
"""

import re

from mech_pipeline.errors import MechError
from mech_pipeline.spec.analysis import Event, Influence
from mech_pipeline.spec.data import Corpus, Data, Probe, Tokenizer
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.stage import Stage
from mech_pipeline.spec.training import Checkpoints, Optimizer, Training

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run_id(experiment: str, arm: str, seed: int) -> str:
    """`<experiment>.<arm>.s<seed>`."""
    return f"{experiment}.{arm}.s{seed}"


def check_run_id(run: str) -> str:
    """Returns the id, or refuses it: Dagster silently drops partitions with `|`, and ranges break on `...` and `,`."""
    if not _RUN_ID.fullmatch(run) or ".." in run:
        raise MechError(
            f"run id {run!r} has characters that partitions and paths cannot carry",
            "use letters, digits, '.', '_' and '-', starting with a letter or digit and without '..'",
        )
    return run


class RunSpec(Stage):
    """One run: all stages with the arm's overrides applied."""

    run: str
    experiment: str
    arm: str
    seed: int
    corpus: Corpus
    tokenizer: Tokenizer
    data: Data
    model: Model
    optimizer: Optimizer
    training: Training
    checkpoints: Checkpoints
    probe: Probe
    mechanisms: tuple[str, ...]
    detectors: tuple[str, ...]
    gradients: tuple[str, ...]
    formation: tuple[Event, ...]
    ledger: tuple[str, ...]
    influence: Influence

    def tokens_slice(self) -> str:
        """What tokens and examples depend on, the corpus' content aside."""
        return fingerprint(self.corpus, self.tokenizer, self.data)

    def training_slice(self) -> str:
        """What every checkpoint depends on, the tokens' content aside.

        Neither the number of steps nor the checkpoint plan is part of it: a longer run has the same first states.
        """
        training = self.training.model_dump(exclude={"steps"})
        return fingerprint(self.model, self.optimizer, training, self.seed)

    def fingerprint(self, corpus_sha256: str) -> str:
        """The run's identity."""
        return fingerprint(self, corpus_sha256)

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The planned grid: sorted, first and last state included."""
        last, plan = self.training.steps, self.checkpoints
        steps = set(range(0, last + 1, plan.every)) | {0, last}
        for begin, end in plan.dense:
            steps |= set(range(begin, min(end, last) + 1, plan.dense_every))
        return tuple(sorted(step for step in steps | set(plan.extra) if 0 <= step <= last))
