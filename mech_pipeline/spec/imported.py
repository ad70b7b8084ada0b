"""A run that was trained elsewhere: where its revisions are. What they hold is filled in when the experiment is resolved."""

from typing import Literal

from pydantic import Field

from mech_pipeline.spec.stage import NamesFiles, added


class Imported(NamesFiles):
    """Where the states of a run come from, instead of training."""

    layout: Literal["folder", "huggingface", "neox", "pico", "olmo", "nanochat"] = Field(
        description="folder: a folder or .safetensors file per step; huggingface: a repository with a revision per step; "
        "neox: native checkpoints of GPT-NeoX; pico: a commit or folder per step with a Fabric state; olmo: unsharded "
        "checkpoints of OLMo-2; nanochat: its model_, meta_ and optim_ files"
    )
    place: str = Field(
        min_length=1,
        description="the folder, or a hub name such as EleutherAI/pythia-14m; `{seed}` and `{arm}` stand for the run's own",
    )
    steps: tuple[int, ...] | None = Field(None, description="which steps; default: all that there are")
    revisions: dict[str, int] = added(
        {}, "steps of revisions whose names do not tell, by name or commit; the others are then left out"
    )
    batches: str | None = added(
        None,
        "what each update saw, where it is known: a table (Parquet or CSV) with update_step, position and example_id, of "
        "examples that corpus, tokenizer and data make; or pre-shuffled token ids (.bin), rows of data.context tokens, "
        "training.batch of them an update",
    )
    moments: Literal["published", "reconstruct"] = added(
        "published",
        "reconstruct: of the optimizer, where they are not published and `batches` tells every update from 0 on: they begin "
        "at zero, so replaying the run gives them; costs a training",
    )
    batches_sha256: str | None = added(None, "content of `batches`; filled in when the experiment is resolved")
    updates: tuple[int, int] = added(
        (0, 0),
        "first update that `batches` tells of, and the one after the last; filled in when the experiment is resolved",
    )
    found: tuple[tuple[int, str, str], ...] = added(
        (), "step, name and identity of each revision; filled in when the experiment is resolved"
    )

    def of(self, arm: str, seed: int) -> "Imported":
        """With the place of one run."""
        return self.model_copy(update={"place": self.place.replace("{arm}", arm).replace("{seed}", str(seed))})

    @property
    def gives_tokens(self) -> bool:
        """Whether `batches` holds the examples themselves."""
        return self.batches is not None and self.batches.endswith(".bin")

    def knows(self, begin: int, end: int) -> bool:
        """Whether it is known what every update of a window saw."""
        return self.batches is not None and self.updates[0] <= begin and end <= self.updates[1]

    @property
    def found_steps(self) -> tuple[int, ...]:
        """The steps of which there is a revision, rising."""
        return tuple(step for step, _, _ in self.found)

    def step_of(self, name: str) -> int | None:
        """The step of a revision that was found; none of another."""
        return next((step for step, each, _ in self.found if each == name), None)

    def revision(self, step: int) -> tuple[str, str]:
        """Name and identity of the revision of a step."""
        return next((name, identity) for each, name, identity in self.found if each == step)
