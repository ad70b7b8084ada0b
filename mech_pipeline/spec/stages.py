"""The parts of an experiment, one small frozen model per stage. Unknown keys are errors.

What each stage depends on is what its model holds; `run.py` turns that into fingerprints.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Stage(BaseModel):
    """Frozen and closed: a misspelt key is an error, not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def added(default: Any, description: str, **limits: Any) -> Any:
    """A field that came after runs had been trained: at its default it is left out of fingerprints, so nothing retrains.

    The default must mean what was done before the field existed, and must never change.
    """
    return Field(default, description=description, exclude_if=lambda value: value == default, **limits)


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


class Model(Stage):
    """TransformerLens' native transformer (`NativeModel`)."""

    layers: int = Field(2, ge=1, le=48)
    heads: int = Field(4, ge=1, description="attention heads per layer")
    d_model: int = Field(64, ge=2, description="width of the residual stream")
    d_head: int | None = Field(None, ge=1, description="width of a head; default d_model / heads")
    d_mlp: int | None = Field(None, ge=1, description="neurons per layer; none makes the model attention-only")
    activation: Literal["gelu", "gelu_new", "relu", "silu", "solu"] = Field("gelu", description="of the MLP")
    normalization: Literal["none", "layer_norm", "rms_norm"] = "none"
    positions: Literal["learned", "rotary"] = "learned"
    init: Literal["pytorch", "gpt2"] = Field("pytorch", description="GPT-2's small init does not form induction here")

    @model_validator(mode="after")
    def _divisible(self) -> "Model":
        if self.d_head is None and self.d_model % self.heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not a multiple of heads ({self.heads}); set d_head or change one"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head width, got {self.head_width}")
        return self

    @property
    def head_width(self) -> int:
        """Width of one head, with the default filled in."""
        return self.d_head or self.d_model // self.heads


class Optimizer(Stage):
    """AdamW with eps inside the root (the "attributable" preset), or SGD with momentum.

    Defaults are the preset; `reliability` says what a departure costs.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    warmup_steps: int = Field(50, ge=0, description="updates of linear warm-up, then constant")
    beta1: float = Field(0.9, ge=0, lt=1, description="momentum of adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of adamw's second moment")
    eps_root: float = Field(1e-8, ge=0, description="inside the root: √(v̂ + eps_root)")
    eps: float = Field(0.0, ge=0, description="outside the root")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.01, ge=0, description="decoupled, on all parameters, times the learning rate")
    clip_norm: float | None = Field(1.0, gt=0, description="largest L2 norm of the batch gradient; none: no clipping")

    @model_validator(mode="after")
    def _bounded_step(self) -> "Optimizer":
        if self.kind == "adamw" and self.eps_root == 0 and self.eps == 0:
            raise ValueError("eps_root and eps are both 0: a parameter without gradient would divide by zero")
        return self


class Training(Stage):
    """How long, how wide, and on how many threads (bits depend on the thread count)."""

    steps: int = Field(1600, ge=1, description="optimizer updates")
    batch: int = Field(32, ge=1, description="examples per update")
    threads: int = Field(1, ge=1, description="CPU threads of one run; part of its identity")


class Checkpoints(Stage):
    """Which states are kept: 0, the last, every `every`, and every `dense_every` inside the dense windows."""

    every: int = Field(25, ge=1, description="updates between checkpoints")
    dense_every: int = Field(10, ge=1, description="updates between checkpoints inside `dense`")
    dense: tuple[tuple[int, int], ...] = Field((), description="windows [from, to] of updates with denser checkpoints")
    extra: tuple[int, ...] = Field((), description="single steps to keep as well")


class Event(Stage):
    """A formation event: a value crosses a threshold and stays across it."""

    mechanism: str | None = Field(None, description="name of a mechanism")
    detector: str | None = Field(None, description="name of a head detector; the best head counts")
    threshold: float = Field(description="absolute, in the unit of the value")
    sustain: int = Field(3, ge=1, description="consecutive evaluations at or above the threshold")

    @model_validator(mode="after")
    def _one_signal(self) -> "Event":
        if (self.mechanism is None) == (self.detector is None):
            raise ValueError("a formation event watches exactly one of `mechanism` or `detector`")
        return self

    @property
    def signal(self) -> str:
        """The name under which the event is stored: the mechanism, or `best_head:<detector>`."""
        return self.mechanism if self.mechanism is not None else f"best_head:{self.detector}"


class Attribution(Stage):
    """Which runs and mechanisms get a ledger or an influence sweep."""

    mechanisms: tuple[str, ...] = Field((), description="names of mechanisms")
    arms: tuple[str, ...] | Literal["all"] = Field(("baseline",), description="arms, or the word all")
    seeds: tuple[int, ...] | Literal["all"] = Field((0,), description="seeds, or the word all")

    def covers(self, arm: str, seed: int) -> bool:
        """Whether a run is selected."""
        return (
            bool(self.mechanisms)
            and (self.arms == "all" or arm in self.arms)
            and (self.seeds == "all" or seed in self.seeds)
        )


class Influence(Attribution):
    """Influence is computed at the formation step of the first formation event."""

    metasmoothness_steps: int = Field(
        200, ge=0, description="updates before the target that are retrained, perturbed; 0: off"
    )
    metasmoothness_size: float = Field(0.05, gt=0, lt=1, description="size h of the perturbation of example weights")


class Probe(Stage):
    """Held-out sequences on which mechanisms and detectors are evaluated."""

    tiled_examples: int = Field(32, ge=1, description="tiled sequences from held-out documents")
    random_examples: int = Field(32, ge=1, description="random tokens repeated with random period")
    seed: int = Field(0, ge=0)
