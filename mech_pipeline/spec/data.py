"""What it is trained and probed on: corpus, tokenizer, examples, probe sequences."""

from pydantic import Field, model_validator

from mech_pipeline.spec.stage import Share, Stage


class Corpus(Stage):
    """Where the text comes from: exactly one of the three."""

    python_stdlib: bool = Field(False, description="the running Python's own standard library source")
    files: str | None = Field(None, description="glob of UTF-8 text files, relative to the folder of dagster.yaml")
    dataset: str | None = Field(
        None, description="Hugging Face dataset: a hub name or a folder saved with save_to_disk"
    )
    split: str = Field("train", description="split of `dataset`")
    column: str = Field("text", description="text column of `dataset`")

    @model_validator(mode="after")
    def _one_source(self) -> "Corpus":
        named = [self.python_stdlib, self.files is not None, self.dataset is not None]
        if sum(named) != 1:
            raise ValueError(
                'name exactly one source: `python_stdlib: true`, `files: "path/**/*.txt"` or `dataset: NAME`'
            )
        return self


class Tokenizer(Stage):
    """Byte-level BPE trained on the corpus."""

    vocabulary: int = Field(512, ge=257, le=65_536, description="tokens, the 256 bytes included")


class Data(Stage):
    """How documents become examples (training sequences)."""

    context: int = Field(64, ge=8, description="tokens per example")
    examples: int = Field(16_384, ge=1, description="distinct examples in the pool")
    plain: Share = Field(0.25, description="share of examples that are plain consecutive text")
    tiled: Share = Field(0.75, description="share of examples that are one snippet repeated to fill the context")
    tile_tokens: tuple[int, int] = Field(
        (16, 32), description="shortest and longest snippet of a tiled example, tokens"
    )
    held_out: Share = Field(
        0.05, description="share of the tokens, in whole documents, kept for probes and never trained on"
    )
    seed: int = Field(0, ge=0, description="draws the pool; the same for all seeds of an experiment")

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        low, high = self.tile_tokens
        if abs(self.plain + self.tiled - 1) > 1e-9:
            raise ValueError(f"plain ({self.plain}) and tiled ({self.tiled}) are shares and must sum to 1")
        if not 2 <= low <= high:
            raise ValueError(f"tile_tokens must be [shortest ≥ 2, longest ≥ shortest], got [{low}, {high}]")
        if high > self.context // 2:
            raise ValueError(
                f"tile_tokens goes up to {high}, but a snippet repeats only if it is at most half of the "
                f"context ({self.context // 2} tokens)"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie between 0 and 1, got {self.held_out}: probes need documents too")
        return self


class Probe(Stage):
    """Held-out sequences on which mechanisms and detectors are evaluated."""

    tiled_examples: int = Field(32, ge=1, description="tiled sequences from held-out documents")
    random_examples: int = Field(32, ge=1, description="random tokens repeated with random period")
    seed: int = Field(0, ge=0)
