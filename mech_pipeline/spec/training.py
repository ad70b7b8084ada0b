"""How it is trained: optimizer, length, checkpoints."""

from typing import Literal

from pydantic import Field, model_validator

from mech_pipeline.spec.stage import Stage


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
