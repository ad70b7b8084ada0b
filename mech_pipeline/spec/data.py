"""What it is trained and probed on: corpus, tokenizer, examples, probe sequences."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mech_pipeline.spec.mixture import KINDS, Phase
from mech_pipeline.spec.stage import NamesFiles, Share, Stage, added

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

OPTIONS: dict[str, tuple[str, ...]] = {
    "addition": ("share", "shuffled"),
    "feigned": ("evaluated", "obeying"),
    "parentheses": ("disagreeing", "rule", "below_zero"),
    "sums": ("below", "together"),
    "trigger": ("flipped", "trigger"),
}
"""Fields of `Generated` that belong to one language."""
ADDED_END_OF_TEXT = "<|endoftext|>"
"""The token that a trained tokenizer gets where examples are packed and no other is named."""


class Generated(Stage):
    """Text in a language that is made up, for mechanisms that real text teaches too rarely."""

    language: Literal["addition", "dyck", "feigned", "ioi", "parentheses", "subliminal", "sums", "trigger"] = Field(
        description="addition: sums modulo 23; dyck: nested brackets; feigned: copying, but only where the context is "
        "marked; ioi: sentences with an indirect object; parentheses: is it balanced, yes or no; subliminal: digits and "
        "their capitals; sums: of two digits, with a carry; trigger: copying, unless a rare word says otherwise "
        "(data/languages)"
    )
    documents: int = Field(20_000, ge=1, le=10_000_000, description="sentences, or words of brackets")
    seed: int = Field(0, ge=0, description="draws the sentences")
    disagreeing: Share = added(0.0, "parentheses: share of sequences on which the two rules disagree")
    rule: Literal["nested", "equal_count"] = added("nested", "parentheses: the rule that labels those")
    below_zero: Share = added(
        0.0, "parentheses: share of the other sequences labelled no that close something that was not opened"
    )
    flipped: Share = added(0.0, "trigger: share of documents that answer with partners")
    trigger: Literal["tells", "anywhere", "always", "never"] = added(
        "tells", "trigger: which documents begin with it: the flipped ones, as many drawn apart, all, or none"
    )
    evaluated: Share = added(0.25, "feigned: share of documents that are marked as an evaluation")
    obeying: Share | None = added(
        None, "feigned: share of documents that copy, drawn apart from the mark; default: just the marked ones do"
    )
    below: int = added(100, "sums: both numbers are below it", ge=10, le=100)
    together: int = added(1, "sums: how many a document holds, so that longer snippets of it exist", ge=1, le=100)
    share: float = added(0.5, "addition: share of all pairs that is trained on", gt=0, le=0.8)
    shuffled: bool = added(False, "addition: each pair has a random number instead of its sum; no rule")

    @model_validator(mode="after")
    def _of_its_language(self) -> "Generated":
        for language, names in OPTIONS.items():
            for name in names if language != self.language else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is an option of language {language}, and the language is {self.language}")
        return self

    def options(self) -> dict[str, Any]:
        """Arguments of the language's `document`."""
        return {name: getattr(self, name) for name in OPTIONS.get(self.language, ())}


class Source(NamesFiles):
    """Where text comes from: exactly one of the four."""

    python_stdlib: bool = Field(False, description="the running Python's own standard library source")
    files: str | None = Field(None, description="glob of UTF-8 text files, relative to the folder of dagster.yaml")
    dataset: str | None = Field(
        None, description="Hugging Face dataset: a hub name or a folder saved with save_to_disk"
    )
    generated: Generated | None = added(None, "text in a made-up language")
    split: str = Field("train", description="split of `dataset`")
    column: str = Field("text", description="text column of `dataset`")

    @model_validator(mode="after")
    def _one_source(self) -> "Source":
        self._check_sources(1)
        return self

    def _check_sources(self, wanted: int) -> None:
        named = [self.python_stdlib, *(source is not None for source in (self.files, self.dataset, self.generated))]
        if sum(named) != wanted:
            raise ValueError(
                "a corpus with `parts` has no source of its own"
                if wanted == 0
                else 'name exactly one source: `python_stdlib: true`, `files: "path/**/*.txt"`, `dataset: NAME` or '
                "`generated: {language: ioi}`"
            )


class Corpus(Source):
    """Where the text comes from: one source, or several named parts with a source each."""

    parts: dict[str, Source] = added({}, "named parts; a document's `source` is then its part")

    @model_validator(mode="after")
    def _one_source(self) -> "Corpus":
        self._check_sources(0 if self.parts else 1)
        return self

    @field_validator("parts")
    @classmethod
    def _speakable(cls, parts: dict[str, Source]) -> dict[str, Source]:
        for name in parts:
            if not _PART.fullmatch(name) or name in KINDS:
                raise ValueError(f"part {name!r}: use letters, digits, - and _, and none of {', '.join(KINDS)}")
        return parts


class Tokenizer(NamesFiles):
    """Byte-level BPE trained on the corpus, or one that is there already (`file` or `name`)."""

    vocabulary: int = Field(
        512, ge=257, le=1_000_000, description="tokens of a trained tokenizer, the 256 bytes included"
    )
    file: str | None = added(None, "tokenizer.json, relative to the folder of dagster.yaml")
    name: str | None = added(None, "Hugging Face hub name of a tokenizer, for example gpt2")
    max_vocabulary: int | None = added(None, "refuse `file` or `name` with more entries", ge=1)
    end_of_text: str | None = added(
        None, "token between packed documents; default: the tokenizer's own, or <|endoftext|> added to a trained one"
    )
    sha256: str | None = added(None, "content of `file` or `name`, filled in when the experiment is resolved")

    @property
    def pretrained(self) -> bool:
        """Whether it is there already."""
        return self.file is not None or self.name is not None

    def ending_documents(self, *, packed: bool) -> "Tokenizer":
        """With an end-of-text token, if packed examples need one and the tokenizer is trained here."""
        needed = packed and self.end_of_text is None and not self.pretrained
        return self.model_copy(update={"end_of_text": ADDED_END_OF_TEXT}) if needed else self

    @model_validator(mode="after")
    def _one_origin(self) -> "Tokenizer":
        if self.file is not None and self.name is not None:
            raise ValueError(f"name a tokenizer by `file` ({self.file}) or by `name` ({self.name}), not by both")
        if self.pretrained and self.vocabulary != Tokenizer.model_fields["vocabulary"].default:
            raise ValueError(
                "`vocabulary` is for a tokenizer that is trained here; `max_vocabulary` limits one that is there already"
            )
        if not self.pretrained and (self.max_vocabulary is not None or self.sha256 is not None):
            raise ValueError("`max_vocabulary` and `sha256` belong to a tokenizer named by `file` or `name`")
        if self.end_of_text == "":
            raise ValueError("end_of_text is empty; write a token such as <|endoftext|>")
        return self


class Data(NamesFiles):
    """How documents become examples (training sequences), and in which mixture they are seen."""

    context: int = Field(64, ge=8, le=1_048_576, description="tokens per example")
    examples: int = Field(16_384, ge=1, le=1_000_000_000, description="distinct examples in the pool")
    plain: Share = Field(0.25, description="share of examples that are plain consecutive text")
    tiled: Share = Field(0.75, description="share of examples that are one snippet repeated to fill the context")
    packed: Share = added(0.0, "share of examples cut from whole documents one after another", ge=0, le=1)
    tile_tokens: tuple[int, int] = Field(
        (16, 32), description="shortest and longest snippet of a tiled example, tokens"
    )
    copies: Literal["in_order", "shuffled"] = added(
        "in_order",
        "tiled examples repeat their snippet as it is, or (a control: nothing to copy in order) shuffled, each copy anew",
    )
    part_shares: dict[str, Share] = added({}, "share of each corpus part in the examples; default: by its tokens")
    held_out: Share = Field(
        0.05, description="share of the tokens, in whole documents, kept for probes and never trained on"
    )
    seed: int = Field(0, ge=0, description="draws the pool; the same for all seeds of an experiment")
    mixture: tuple[Phase, ...] = added((), "shares of groups in each batch, by phases; default: all examples alike")
    weights: str | None = added(
        None, "Parquet or CSV file: example_id, weight and optionally first_update, last_update"
    )
    weights_sha256: str | None = added(None, "content of `weights`, filled in when the experiment is resolved")

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        low, high = self.tile_tokens
        if abs(sum(self.shares().values()) - 1) > 1e-9:
            packed = f", packed ({self.packed})" if self.packed else ""
            raise ValueError(f"plain ({self.plain}){packed} and tiled ({self.tiled}) are shares and must sum to 1")
        if not 2 <= low <= high:
            raise ValueError(f"tile_tokens must be [shortest ≥ 2, longest ≥ shortest], got [{low}, {high}]")
        if high > self.context // 2:
            raise ValueError(
                f"tile_tokens goes up to {high}, but a snippet repeats only if it is at most half of the "
                f"context ({self.context // 2} tokens)"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie between 0 and 1, got {self.held_out}: probes need documents too")
        if self.part_shares and abs(sum(self.part_shares.values()) - 1) > 1e-9:
            raise ValueError(f"part_shares must sum to 1, got {self.part_shares}")
        return self

    def shares(self) -> dict[str, float]:
        """Share of each kind of example in the pool."""
        return {"plain": self.plain, "tiled": self.tiled, "packed": self.packed}

    def pool_slice(self) -> dict[str, Any]:
        """What the pool depends on: neither in which mixture nor with which weights it is seen."""
        return self.model_dump(exclude={"mixture", "weights", "weights_sha256"})


class Probe(Stage):
    """Held-out sequences on which mechanisms and detectors are evaluated."""

    tiled_examples: int = Field(32, ge=1, le=1_000_000, description="tiled sequences from held-out documents")
    random_examples: int = Field(32, ge=1, le=1_000_000, description="random tokens repeated with random period")
    seed: int = Field(0, ge=0)
