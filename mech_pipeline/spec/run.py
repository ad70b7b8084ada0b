"""One training run, fully resolved, and what each stage of it depends on.

A run id is `<experiment>.<arm>.s<seed>`; its identity is the fingerprint of its resolved spec together with the
content of its corpus. Stage fingerprints hold only what that stage depends on: changing a formation threshold
leaves tokens, training and analysis untouched.
"""

import re
from pathlib import Path

from pydantic import model_validator

from mech_pipeline.errors import MechError
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run_checks import check_asked, check_run
from mech_pipeline.spec.run_parts import RunParts

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


class RunSpec(RunParts):
    """One run: all stages with the arm's overrides applied, which fit each other."""

    @model_validator(mode="after")
    def _fits(self) -> "RunSpec":
        check_run(self)
        return self

    def check_asked(self) -> None:
        """What is asked of single states and windows can be had of this run and its model.

        Raises:
            ValueError: it cannot.
        """
        check_asked(self)

    def _check_resolved(self) -> None:
        """Fingerprints hold what files contain: a run whose files were not looked at has none."""
        for field, named, content in (
            ("tokenizer", self.tokenizer.file or self.tokenizer.name, self.tokenizer.sha256),
            ("data.weights", self.data.weights, self.data.weights_sha256),
            ("model.init_from", self.model.init_from, self.model.init_sha256),
            ("imported", self.imported and self.imported.place, self.imported and self.imported.found),
            (
                "imported.batches",
                self.imported and self.imported.batches,
                self.imported and self.imported.batches_sha256,
            ),
        ):
            if named is not None and not content:
                raise MechError(
                    f"run {self.run}: the content of {field} ({named}) is not known yet",
                    "take its runs from `mech_pipeline.resolve.resolve(experiment)`, which reads the files",
                )

    def at(self, home: Path) -> "RunSpec":
        """The same run, with names of files that begin at a folder; nothing that is fingerprinted changes."""
        stages = {"corpus": self.corpus, "tokenizer": self.tokenizer, "data": self.data, "model": self.model}
        stages |= {} if self.imported is None else {"imported": self.imported}
        return self.model_copy(update={name: stage.at(home) for name, stage in stages.items()})

    def tokens_slice(self) -> str:
        """What tokens and examples depend on, the corpus' content aside."""
        self._check_resolved()
        return fingerprint(self.corpus, self.tokenizer, self.data.pool_slice())

    def training_slice(self) -> str:
        """What every checkpoint depends on, the tokens' content aside.

        Neither the number of steps nor the checkpoint plan is part of it: a longer run has the same first states
        (unless its learning rate is scheduled towards its end, and then the optimizer names the horizon).
        """
        self._check_resolved()
        mixture = [self.data.mixture] if self.data.mixture else []
        if self.imported is not None:
            how = (
                [self.optimizer, self.training.identity(), self.imported.batches_sha256]
                if self.imported.batches
                else []
            )
            how += [self.imported.moments] if self.imported.moments != "published" else []
            return fingerprint(self.model, self.imported.layout, self.imported.place, *how)
        held = [{"interventions": self.interventions}] if self.interventions else []
        return fingerprint(self.model, self.optimizer, self.training.identity(), self.seed, *mixture, *held)

    def trunk_slice(self) -> str:
        """What every checkpoint would depend on if nothing were held in the model."""
        return self.model_copy(update={"interventions": ()}).training_slice()

    def fingerprint(self, corpus_sha256: str) -> str:
        """The run's identity."""
        self._check_resolved()
        return fingerprint(self, corpus_sha256)
