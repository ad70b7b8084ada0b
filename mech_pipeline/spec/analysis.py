"""What is asked of a trained run: formation events, ledger, influence."""

from typing import Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from mech_pipeline.spec.stage import Stage, added

HELD_OUT = "held_out_log_probability"
"""The mechanism that every checkpoint is measured on by default."""
WEIGHTS = "weights"
"""Name, in the table `ledger`, of the account of the weights themselves."""
Method = Literal["adjoint", "adjoint_mean", "gradient_dot", "gradient_dot_adam", "gauss_newton", "ekfac", "sketch"]


class Event(Stage):
    """A formation event: a value crosses a threshold and stays across it."""

    mechanism: str | None = Field(None, description="name of a mechanism")
    detector: str | None = Field(None, description="name of a head detector; the best head counts")
    threshold: float = Field(description="absolute, in the unit of the value")
    sustain: int = Field(3, ge=1, description="consecutive evaluations at or above the threshold")
    after: int = added(0, "step before which evaluations do not count, for what has been there before", ge=0)

    @model_validator(mode="after")
    def _one_signal(self) -> "Event":
        if (self.mechanism is None) == (self.detector is None):
            raise ValueError("a formation event watches exactly one of `mechanism` or `detector`")
        return self

    @property
    def signal(self) -> str:
        """The name under which the event is stored: the mechanism, or `best_head:<detector>`."""
        return self.mechanism if self.mechanism is not None else f"best_head:{self.detector}"

    @property
    def since(self) -> str:
        """In words, from which step on it is looked for; nothing if from the beginning."""
        return f" from step {self.after} on" if self.after else ""


class Selection(Stage):
    """Which runs get an analysis."""

    arms: tuple[str, ...] | Literal["all"] = Field(("baseline",), description="arms, or the word all")
    seeds: tuple[StrictInt, ...] | Literal["all"] = Field((0,), description="seeds, or the word all")

    @property
    def asks(self) -> bool:
        """Whether anything is asked for at all."""
        raise NotImplementedError

    def covers(self, arm: str, seed: int) -> bool:
        """Whether a run is selected."""
        return self.asks and (self.arms == "all" or arm in self.arms) and (self.seeds == "all" or seed in self.seeds)


class Attribution(Selection):
    """Which runs and mechanisms get a ledger or an influence sweep."""

    mechanisms: tuple[str, ...] = Field((), description="names of mechanisms")

    @property
    def asks(self) -> bool:
        """Whether a mechanism is named."""
        return bool(self.mechanisms)


class OverWindows(Selection):
    """What is measured over windows of training."""

    windows: tuple[tuple[int, int], ...] = Field(
        (), description="[first, last] step of each window, planned checkpoints"
    )

    @property
    def asks(self) -> bool:
        """Whether a window is named."""
        return bool(self.windows)

    @field_validator("windows")
    @classmethod
    def _one_window_an_end(cls, windows: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        ends = [last for _, last in windows]
        if any(not 0 <= first < last for first, last in windows) or len(set(ends)) != len(ends):
            raise ValueError(
                f"windows are [first, last], first before last, each with an end of its own; got {list(windows)}"
            )
        return windows


class Neurons(OverWindows):
    """Which tokens and contexts moved every MLP neuron's weights, over windows of training."""

    tokens: int = Field(10, ge=1, description="tokens that are kept of each part of a neuron")
    contexts: int = Field(3, ge=1, description="single positions that are kept of each part")
    ablated: int = Field(
        64, ge=0, description="neurons, those that moved furthest, whose effect on the loss is measured"
    )


class Readouts(OverWindows):
    """Which tokens the movements of neurons and heads promote and suppress, over windows of training."""

    tokens: int = Field(5, ge=1, le=1000, description="tokens each way")
    neurons: int = Field(
        64, ge=0, description="neurons of a layer, those whose output weights moved furthest; heads: all"
    )


class Discovery(Selection):
    """What formed that nobody named: clusters of held-out tokens whose losses changed alike, atoms of applied updates."""

    tokens: int = Field(
        0,
        ge=0,
        le=100_000,
        description="probe tokens, each in a held-out example of its own; by needs: examples, all of whose tokens are looked at; "
        "0: none",
    )
    smallest: int = Field(12, ge=3, description="tokens of a cluster, at least")
    path: Literal["updates", "pieces", "chord"] = Field(
        "updates",
        description="along every update, as training went; or cheaper along straight lines over five updates, or from checkpoint "
        "to checkpoint, which sum to the same changes and share them out otherwise",
    )
    by: Literal["courses", "paths", "needs"] = Field(
        "courses",
        description="what clusters are alike in: the course of the loss and of what was gained by looking, or all components; or "
        "which heads and MLPs they need when, of tokens that need the order of what came before them",
    )
    seed: int = Field(0, ge=0, description="draws the tokens")
    atoms: int = added(
        0,
        "directions that are sought in each window of training among what its examples did to the weights, each with two ends "
        "(atoms); 0: none",
        ge=0,
        le=100,
    )
    atom_examples: int = added(24, "examples of an atom, those that point furthest its way", ge=3, le=10_000)

    @property
    def asks(self) -> bool:
        """Whether there are tokens to look at, or atoms to look for."""
        return self.tokens > 0 or self.atoms > 0

    @property
    def moves(self) -> bool:
        """Whether the loss changes of single tokens are followed, component by component."""
        return self.tokens > 0 and self.by != "needs"

    @property
    def of_tokens(self) -> "Discovery":
        """What is asked of tokens, with nothing said of atoms."""
        return Discovery.model_validate(self.model_dump(exclude={"atoms", "atom_examples"}))


class Ledger(Attribution):
    """What the account is split by, beside example and component."""

    tokens: tuple[Literal["position", "target"], ...] = added(
        (), "also by token: whose activations the gradient went through (position), or whose loss it is (target)"
    )
    neurons: bool = added(False, "split the MLPs by neuron, in- and out-weights apart; many rows")
    weights: bool = added(
        False, f"also the account of the weights themselves, as mechanism `{WEIGHTS}`: which examples moved which part"
    )

    @property
    def asks(self) -> bool:
        """A ledger of the weights needs no mechanism."""
        return bool(self.mechanisms) or self.weights

    def resolution(self) -> "Resolution":
        """The splits alone, as a run keeps them."""
        return Resolution(tokens=self.tokens, neurons=self.neurons, weights=self.weights)


class InTraining(Attribution):
    """First-order scores that training itself computes, for what is too expensive to replay."""

    components: tuple[str, ...] = Field(
        (), description="only gradients of these parts, such as L1H*.K (cheaper); default: all"
    )


class Circuits(Attribution):
    """Which edges between components carry a mechanism, at some checkpoints. Seconds a checkpoint and mechanism."""

    every: int = Field(100, ge=1, description="at planned checkpoints whose step this divides, and the last one")
    random_orders: int = Field(5, ge=1, le=100, description="random orders of the edges, as a baseline")


class Resolution(Stage):
    """How finely a run's ledger is split."""

    tokens: tuple[Literal["position", "target"], ...] = ()
    neurons: bool = False
    weights: bool = False


class Retraining(Stage):
    """Removals that are really retrained: what predictions are measured against."""

    fractions: tuple[float, ...] = Field(
        (0.005, 0.01, 0.05), description="shares of the examples seen that random removals leave out"
    )
    subsets: int = Field(40, ge=3, description="random removals of each fraction")
    top: tuple[float, ...] = Field((), description="shares of the most positive influence that are left out as well")
    matched: bool = added(
        False,
        "beside each of `top`, a random removal with as many examples of every kind: what is left is the choice itself",
    )
    seed: int = Field(0, ge=0, description="seed of the random removals")

    @field_validator("fractions", "top")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(shares)) != len(shares) or any(not 0 < share < 1 for share in shares):
            raise ValueError(f"shares must be distinct and between 0 and 1, got {list(shares)}")
        return shares


class AdjointMean(Stage):
    """Over which trainings `adjoint_mean` averages the exact influence."""

    trajectories: int = Field(6, ge=1, description="trainings in all; the first leaves nothing out")
    share: float = Field(
        0.05, gt=0, lt=1, description="of the examples seen, at random, that each of the others trains without"
    )
    seed: int = Field(0, ge=0, description="seed of these shares")


class Influence(Attribution):
    """What would happen to mechanisms at target steps; by default where the first formation event happened."""

    metasmoothness_steps: int | None = Field(
        None, ge=0, description="updates before the target that are retrained twice, perturbed; empty: all; 0: none"
    )
    metasmoothness_size: float = Field(0.05, gt=0, lt=1, description="size h of the perturbation of example weights")
    at: Literal["formation", "checkpoints"] | tuple[StrictInt, ...] = added(
        "formation", "target steps: where the first event formed, every planned checkpoint, or a list of steps"
    )
    horizon: int | None = added(None, "only the influence of so many updates before each target", ge=1)
    components: bool = added(False, "split the adjoint's scores by head and layer; parts sum to the whole")
    tokens: bool = added(False, "also by target token, in the table `influence_tokens`")
    methods: tuple[Method, ...] = added(("adjoint",), "estimators: the exact adjoint and cheaper ones")
    sketch_size: int = added(
        1024,
        "numbers a gradient is sketched with, where `methods` has sketch; error falls with the root",
        ge=4,
        multiple_of=4,
    )
    adjoint_mean: AdjointMean = added(
        AdjointMean(),
        "which trajectories are averaged, where `methods` has adjoint_mean; each costs a sweep and a training",
    )
    retraining: Retraining | None = added(None, "measure the predictions against removals that are really retrained")

    @field_validator("methods")
    @classmethod
    def _distinct_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if not methods or len(set(methods)) != len(methods):
            raise ValueError(f"name one or more different methods, got {list(methods)}")
        return methods
