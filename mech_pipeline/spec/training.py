"""How it is trained: optimizer, schedule, batches, checkpoints.

Some choices make attribution unreliable or impossible. They are allowed, and `caveats` says so in words that are
stored with the run.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from mech_pipeline.spec.stage import Stage, added

WSD_DECAY_SHARE = 0.2
"""Share of the horizon that WSD decays over by default (Hägele et al. 2024 use 10 to 20 %)."""

_MOST_CHECKPOINTS = 1_000_000


class Optimizer(Stage):
    """AdamW with eps inside the root (the "attributable" preset), Adam, SGD with momentum, or Muon.

    Defaults are the preset; `reliability` says what a departure costs.
    """

    kind: Literal["adamw", "adam", "sgd", "muon"] = Field(
        "adamw",
        description="adam: decay is part of the gradient; muon: hidden matrices by Muon, everything else by adamw",
    )
    learning_rate: float = Field(3e-3, gt=0, description="after warm-up, before any decay")
    warmup_steps: int = Field(50, ge=0, description="updates of linear warm-up")
    schedule: Literal["constant", "cosine", "wsd"] = added(
        "constant", "after warm-up: constant, one half cosine, or constant with a linear decay at the end (WSD)"
    )
    horizon: int | None = added(None, "update at which cosine or WSD ends; default training.steps", ge=1)
    decay_steps: int | None = added(None, "updates of WSD's final decay; default a fifth of the horizon", ge=1)
    final_share: float = added(0.0, "share of the learning rate that is left at the horizon", ge=0, le=1)
    rates: tuple[float, ...] = added(
        (), "the learning rate of every update, from a record; instead of learning_rate, warm-up and schedule"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="momentum of adam and adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the second moment of adam and adamw")
    eps_root: float = Field(1e-8, ge=0, description="inside the root: √(v̂ + eps_root)")
    eps: float = Field(0.0, ge=0, description="outside the root")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and muon")
    weight_decay: float = Field(
        0.01, ge=0, description="on all parameters: decoupled, times the learning rate; with adam added to the gradient"
    )
    clip_norm: float | None = Field(1.0, gt=0, description="largest L2 norm of the batch gradient; none: no clipping")

    @model_validator(mode="after")
    def _bounded_step(self) -> "Optimizer":
        if self.kind != "sgd" and self.eps_root == 0 and self.eps == 0:
            raise ValueError("eps_root and eps are both 0: a parameter without gradient would divide by zero")
        return self

    @model_validator(mode="after")
    def _schedule_fields(self) -> "Optimizer":
        if self.schedule == "constant" and (self.horizon is not None or self.final_share):
            raise ValueError("horizon and final_share belong to schedule: cosine or wsd; the schedule is constant")
        if self.schedule != "wsd" and self.decay_steps is not None:
            raise ValueError(f"decay_steps belongs to schedule: wsd; the schedule is {self.schedule}")
        if self.horizon is not None:
            self.check_horizon(self.horizon)
        return self

    @model_validator(mode="after")
    def _one_source_of_rates(self) -> "Optimizer":
        if self.rates and self.schedule != "constant":
            raise ValueError(f"rates give the learning rate of every update; leave out schedule: {self.schedule}")
        return self

    @property
    def linear(self) -> bool:
        """Whether an update is linear in the gradients it sums, which the ledger and the adjoint rest on."""
        return self.kind != "muon"

    def check_horizon(self, horizon: int) -> None:
        """Whether warm-up and decay fit; a schedule without a horizon of its own gets the run's length."""
        decay = self.decay_steps or 0
        if self.schedule != "constant" and self.warmup_steps + decay > horizon:
            raise ValueError(
                f"warm-up ({self.warmup_steps} updates) and decay ({decay}) do not fit into the {horizon} updates of "
                f"schedule: {self.schedule}"
            )

    def until(self, steps: int) -> "Optimizer":
        """With the horizon filled in, so that a schedule that depends on the run's length says so itself."""
        if self.schedule == "constant" or self.horizon is not None:
            return self
        return self.model_copy(update={"horizon": steps})


class Hopeless(Stage):
    """A run that will not form, by a rule that is written before it trains."""

    at: int = Field(ge=1, description="the first evaluation from this update on decides")
    below: float = Field(description="it stops there if the watched value is below this, in its unit")


class Stop(Stage):
    """When a run may end before its last update, by the value of its first formation event at planned checkpoints."""

    settled: int | None = Field(None, ge=0, description="so many updates after the formation step")
    hopeless: Hopeless | None = None

    @model_validator(mode="after")
    def _some_rule(self) -> "Stop":
        if self.settled is None and self.hopeless is None:
            raise ValueError("stop: name `settled`, `hopeless`, or both")
        return self


class Training(Stage):
    """How long, how wide, and what decides the bits: device, threads, micro-batches, precision."""

    steps: int = Field(1600, ge=1, le=1_000_000_000, description="optimizer updates")
    batch: int = Field(32, ge=1, le=10_000_000, description="examples per update")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of one process; part of the run's identity")
    micro_batches: int = added(
        1, "equal parts of a batch, one backward each (gradient accumulation), summed in a fixed order", ge=1
    )
    processes: int = added(1, "torchrun processes that share the micro-batches; any number gives the same bits", ge=1)
    device: Literal["cpu", "cuda"] = added("cpu", "where a run is trained and replayed; bits differ between devices")
    precision: Literal["fp32", "bf16"] = added("fp32", "bf16: autocast in forward and backward, weights stay fp32")
    attention: Literal["math", "fused"] = added(
        "math",
        "fused is faster from contexts of about 128 on; derivatives of gradients are always taken through math",
    )
    compile: bool = added(False, "torch.compile the model")
    sharded: bool = added(
        False, "split weights and moments among the processes (FSDP2), for models that one device cannot hold"
    )
    stacked: bool = added(False, "train the seeds of an arm together in one process, parameters stacked")
    stop: Stop | None = added(None, "end a run that has formed and settled, or that will not form")

    @model_validator(mode="before")
    @classmethod
    def _a_part_for_each_process(cls, content: Any) -> Any:
        """Several processes need as many micro-batches; who names none gets just that."""
        if isinstance(content, dict) and "micro_batches" not in content and isinstance(content.get("processes"), int):
            return content | {"micro_batches": content["processes"]}
        return content

    @model_validator(mode="after")
    def _shared_evenly(self) -> "Training":
        if self.processes > self.batch:
            raise ValueError(f"{self.processes} processes share a batch of {self.batch}: more ranks than examples")
        if self.batch % self.micro_batches:
            raise ValueError(f"a batch of {self.batch} does not split into {self.micro_batches} equal micro-batches")
        if self.processes & (self.processes - 1):
            raise ValueError(
                f"{self.processes} processes: use a power of two, so that gradients are summed in the same order as "
                "in one process"
            )
        if self.micro_batches % self.processes:
            raise ValueError(
                f"{self.micro_batches} micro-batches cannot be shared by {self.processes} processes; name a multiple"
            )
        if self.sharded and (self.stacked or self.compile or self.micro_batches & (self.micro_batches - 1)):
            raise ValueError("sharded runs need micro_batches to be a power of two, and neither compile nor stacked")
        if self.stacked and (
            self.processes > 1 or self.compile or self.attention == "fused" or self.precision == "bf16"
        ):
            raise ValueError("stacked runs train in one process in fp32, without compile and without fused attention")
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the states: neither the number of updates, nor when it may stop, nor who shares the work."""
        return self.model_dump(exclude={"steps", "processes", "stop"})


def caveats(optimizer: Optimizer, training: Training) -> tuple[str, ...]:
    """What about these choices makes attribution unreliable or impossible, one sentence each; none for the defaults."""
    found = []
    if not optimizer.linear:
        found.append("muon orthogonalises its updates: no ledger and no influence")
    elif optimizer.kind != "sgd" and optimizer.eps_root == 0:
        found.append("eps outside the root only: training is not smooth where second moments are near 0")
    if training.precision == "bf16":
        found.append("bf16 gradients carry 3 digits: neither ledger nor influence is exact")
    if training.compile:
        found.append("compiled kernels are not the replayed ones: attribution repeats training to rounding only")
    return tuple(found)


class Adaptive(Stage):
    """Denser checkpoints where a mechanism moves: between two planned checkpoints that differ by `change` or more."""

    mechanism: str = Field(description="name of a mechanism of the experiment")
    change: float = Field(gt=0, description="movement between two checkpoints that asks for more, in its unit")
    every: int = Field(10, ge=1, description="updates between the checkpoints that are added")


class Checkpoints(Stage):
    """Which states are kept: 0, the last, every `every`, and more where more happens."""

    every: int = Field(25, ge=1, description="updates between checkpoints")
    log: int | None = added(
        None, "so many per doubling as well, from step 1 until they are wider than `every`", ge=1, le=1000
    )
    dense_every: int = Field(10, ge=1, description="updates between checkpoints inside `dense`")
    dense: tuple[tuple[int, int], ...] = Field((), description="windows [from, to] of updates with denser checkpoints")
    extra: tuple[int, ...] = Field((), description="single steps to keep as well")
    adaptive: Adaptive | None = added(None, "denser while a watched mechanism is moving")

    @model_validator(mode="after")
    def _steps_that_can_be(self) -> "Checkpoints":
        if negative := [step for step in self.extra if step < 0]:
            raise ValueError(f"extra: there is no step {negative[0]}")
        if wrong := [window for window in self.dense if not 0 <= window[0] <= window[1]]:
            raise ValueError(f"dense: a window is [first, last] step, first before last, got {list(wrong[0])}")
        return self

    def check_number(self, last: int) -> None:
        """Refuses a plan that nobody could keep; counted without making it.

        Raises:
            ValueError: it has more than a million checkpoints.
        """
        planned = last // self.every + sum((min(end, last) - begin) // self.dense_every for begin, end in self.dense)
        planned += 0 if self.adaptive is None else last // self.adaptive.every
        if planned > _MOST_CHECKPOINTS:
            raise ValueError(f"checkpoints: {planned:,} are planned in {last:,} steps; raise checkpoints.every")

    def grid(self, last: int) -> tuple[int, ...]:
        """The steps that are known before training: sorted, first and last state included.

        >>> Checkpoints(every=100, log=1).grid(300)
        (0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 300)
        """
        steps = {*range(0, last + 1, self.every), 0, last, *self.extra}
        for begin, end in self.dense:
            steps |= set(range(begin, min(end, last) + 1, self.dense_every))
        if self.log is not None:
            octaves = self.every.bit_length()
            steps |= {step for k in range(octaves * self.log + 1) if (step := round(2 ** (k / self.log))) < self.every}
        return tuple(sorted(step for step in steps if 0 <= step <= last))

    def possible(self, last: int) -> tuple[int, ...]:
        """The grid, and every step that `adaptive` may add."""
        more = range(0, last + 1, self.adaptive.every) if self.adaptive is not None else ()
        return tuple(sorted({*self.grid(last), *more}))
